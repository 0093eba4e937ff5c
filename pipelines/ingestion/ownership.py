"""Which follower works on which partitions of the log, as followers agree on in State.

Every follower is a member, and its membership a lease. Whoever finds a member's lease run out strikes the member. The
partitions go round the members in the order of their names, and a partition's own lease passes from one to the next.
This only saves work: followers that overlap for a moment, since one slept past its leases, are kept apart by the
positions in the lake.
"""

from __future__ import annotations

import logging
import secrets
from contextlib import suppress

from pipelines.state.failures import StaleError, StateError
from pipelines.state.state import Lease, State

_log = logging.getLogger(__name__)

LEASE_S = 20.0
"""How long the partitions of a follower that was killed wait for another one, in seconds."""
_MEMBER = "follower/"


class Ownership:
    """The partitions of one follower.

    Args:
        state: State.
        partitions: partitions of the log.
        lease_s: how long a lease lasts; `renew` has to be called more often.
    """

    def __init__(self, state: State, partitions: int, *, lease_s: float = LEASE_S) -> None:
        self._state, self._partitions, self._lease_s = state, partitions, lease_s
        self._name = _MEMBER + secrets.token_hex(8)
        self._member: Lease | None = None
        self._held: dict[int, Lease] = {}

    def renew(self) -> list[int]:
        """Extend what is ours, give away what is not, take what is free; return the partitions that are ours.

        While State is away they stay ours: work that is done twice is better than none.
        """
        try:
            ours = self._share()
            for partition, lease in list(self._held.items()):
                if partition not in ours:
                    self._state.release(lease)
                    del self._held[partition]
                elif not self._state.renew(lease, self._lease_s):
                    del self._held[partition]
            for partition in ours - set(self._held):
                lease = self._state.acquire(f"ingest/{partition}", self._lease_s, holder=self._name)
                if lease is not None:
                    self._held[partition] = lease
        except StateError as error:
            _log.warning("partitions stay as they are: %s", error)
        return sorted(self._held)

    def close(self) -> None:
        """Give everything back, so that others need not wait."""
        with suppress(StateError):
            for lease in (*self._held.values(), *([self._member] if self._member else [])):
                self._state.release(lease)
            self._held.clear()
            strike_absent(self._state)

    def _share(self) -> set[int]:
        if self._member is None or not self._state.renew(self._member, self._lease_s):
            self._member = self._state.acquire(self._name, self._lease_s)
        members = strike_absent(self._state, but=self._name)
        if self._name not in members:
            with suppress(StaleError):
                self._state.put({self._name: (None, b"")}, by=self._name)
        everyone = sorted({*members, self._name})
        return set(range(everyone.index(self._name), self._partitions, len(everyone)))


def strike_absent(state: State, *, but: str = "") -> list[str]:
    """Return the followers that are at work; strike those whose leases ran out, `but` never.

    Raises:
        StateError: State is away.
    """
    there: list[str] = []
    for name, version in state.versions(_MEMBER).items():
        if name == but or state.acquire(name, 0.0) is None:
            there.append(name)
            continue
        with suppress(StaleError):
            state.put({name: (version, None)}, by=but)
    return there
