"""Erasures that reach the spools of every machine: announced in State, carried out by each service in its own spool.

    erasure/ID    when, and what the spools are to forget

An announcement holds hashes of event ids, since nothing of the subject may be kept to forget it by.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta

import msgspec

from pipelines.log.protocol import DECISIONS, OUTCOMES
from pipelines.log.sqlite.log import LocalLog
from pipelines.state.rows import read_packed
from pipelines.state.state import State

SPOOLED_FOR = timedelta(hours=24)
"""How long a spool keeps what it has forwarded."""
_FOLLOWED_FOR = timedelta(days=8)
"""How long a machine may be away and still hear of an erasure when it comes back."""
_PREFIX = "erasure/"
_IDS = 50_000


class Announced(msgspec.Struct, frozen=True, kw_only=True):
    """What the spools are to forget.

    Attributes:
        at: when it was announced.
        events: the first 16 bytes of the SHA-256 of each event id.
    """

    at: datetime
    events: list[bytes]


def announce(state: State, event_ids: Iterable[bytes], now: datetime, *, by: str) -> None:
    """Tell the services of all machines to empty what their spools hold under the event ids.

    Raises:
        StateError: State cannot be reached.
    """
    hashes = sorted({hashed(event_id) for event_id in event_ids})
    for start in range(0, len(hashes), _IDS):
        announced = Announced(at=now, events=hashes[start : start + _IDS])
        state.put({f"{_PREFIX}{uuid.uuid4()}": (None, msgspec.msgpack.encode(announced))}, by=by)


def is_announced(state: State, event_id: bytes) -> bool:
    """Return whether an erasure of the event was announced.

    Raises:
        StateError: State cannot be reached.
    """
    sought = hashed(event_id)
    for key in state.versions(_PREFIX):
        entry = state.get(key)
        if entry is not None and sought in read_packed(key, entry.value, Announced).events:
            return True
    return False


def over(state: State, days: int, now: datetime) -> dict[str, int]:
    """Return the announcements that no machine has to hear of any more, by key, with their bytes.

    Args:
        state: State.
        days: how long a log keeps messages; as long there is an answer to who asks for one of them.
        now: the time.

    Raises:
        StateError: State cannot be reached.
    """
    before = now - max(_FOLLOWED_FOR, timedelta(days=days))
    found = state.entries(_PREFIX)
    times = {key: read_packed(key, entry.value, Announced).at for key, entry in found.items()}
    return {key: len(found[key].value) for key, at in times.items() if at.astimezone(UTC) < before}


class Erasures:
    """What this machine's spool has been told to forget.

    Args:
        state: State.
        log: the spool.
        forget: takes the event ids that it forgot, for what else holds them.
    """

    def __init__(
        self, state: State, log: LocalLog, forget: Callable[[Sequence[bytes]], None] = lambda event_ids: None
    ) -> None:
        self._state, self._log, self._also = state, log, forget
        self._done: set[str] = set()

    def follow(self, now: datetime) -> int:
        """Carry out what was announced since the last call, and return how many messages were emptied.

        Raises:
            StateError: State cannot be reached.
        """
        emptied = 0
        for key in self._state.versions(_PREFIX).keys() - self._done:
            entry = self._state.get(key)
            if entry is not None:
                announced = read_packed(key, entry.value, Announced)
                if now - announced.at.astimezone(UTC) < _FOLLOWED_FOR:
                    emptied += self._forget(frozenset(announced.events))
            self._done.add(key)
        return emptied

    def _forget(self, hashes: frozenset[bytes]) -> int:
        emptied = 0
        for topic in (DECISIONS, OUTCOMES):
            keys = [key for key in self._log.keys(topic) if hashed(key) in hashes]
            emptied += self._log.redact(topic, keys)
            self._also(keys)
        return emptied


def hashed(event_id: bytes) -> bytes:
    """Return what stands for an event id in an announcement."""
    return hashlib.sha256(event_id).digest()[:16]
