"""Where a guard keeps its state: in State, one change per step, and a fence between writers.

A step reads the state with its epoch and commits only if the epoch is still that one, so whatever a second aggregator
or an operator did meanwhile, on any machine, is never overwritten. The snapshot is published from what is committed: it
never goes back to an older version, and a crash before it is made good by the next step.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

import msgspec

from decision.errors import FieldError
from decision.guard.snapshot import GuardSnapshot, decode_snapshot, encode_snapshot
from pipelines.guard.former import adopt
from pipelines.guard.keys import (
    all_folds_of,
    attempt_key,
    attempts_of,
    fold_key,
    folds_of,
    guard_key,
    move_key,
    moves_of,
    snapshot_key,
)
from pipelines.guard.state import GuardState
from pipelines.settings import Settings
from pipelines.state.change import change
from pipelines.state.failures import StaleError
from pipelines.state.rows import read_packed
from pipelines.state.state import Entry, State

MOVES = 1_000
"""Moves that are shown, and kept."""


class FencedError(RuntimeError):
    """Someone else moved the guard since its state was read."""


class Move(msgspec.Struct, frozen=True, kw_only=True):
    """One event of a rollout.

    Attributes:
        at: when, ISO 8601 UTC.
        kind: ``started``, ``raised``, ``lowered``, ``excluded`` (killed in one segment), ``frozen``, ``drifted``,
            ``killed``, ``promoted``, ``withdrawn``, ``capped``, ``stopped``, ``resumed`` or ``failed``.
        baseline_version: the policy in charge.
        candidate_version: the version rolled out.
        guard_version: version under which it was published.
        from_weight: the candidate's share before.
        to_weight: the share after.
        reason: why, in words.
        numbers: what it rests on.
    """

    at: str
    kind: str
    baseline_version: str
    candidate_version: str
    guard_version: int
    from_weight: float
    to_weight: float
    reason: str = ""
    numbers: Mapping[str, float] = {}


def move(
    kind: str,
    before: GuardState,
    after: GuardState,
    version: int,
    now: datetime,
    numbers: dict[str, float] | None = None,
) -> Move:
    """Return the event of a move from `before` to `after`, published as `version`."""
    return Move(
        at=now.astimezone(UTC).isoformat(),
        kind=kind,
        baseline_version=after.baseline_version,
        candidate_version=after.candidate_version,
        guard_version=version,
        from_weight=before.weight,
        to_weight=after.weight,
        reason=after.reason,
        numbers=numbers or {},
    )


class GuardStore:
    """State, attempts, folds and moves of one loop's guard; a file of an earlier release is taken over once.

    Args:
        settings: the installation.
        loop: the loop's name.
    """

    def __init__(self, settings: Settings, loop: str) -> None:
        self._loop = loop
        self._state = State(settings.state_url)
        adopt(settings, self._state, loop)

    def close(self) -> None:
        """Close the connections."""
        self._state.close()

    def load(self) -> GuardState:
        """Return the committed state."""
        return self._decoded(self._state.get(guard_key(self._loop)))

    def moves(self, latest: int = MOVES) -> list[Move]:
        """Return the `latest` moves, oldest first."""
        found = self._state.entries(moves_of(self._loop))
        return [read_packed(key, found[key].value, Move) for key in sorted(found)[-latest:]]

    def attempts_of(self, candidate: str) -> int:
        """Return how many attempts the version `candidate` has had."""
        found = self._state.entries(attempts_of(self._loop)).items()
        return sum(read_packed(key, entry.value, GuardState).candidate_version == candidate for key, entry in found)

    def attempt(self, number: int) -> tuple[GuardState, list[dict[int, int]]]:
        """Return the state in which an attempt began, and the positions after each of its folds.

        Raises:
            FieldError: there is no such attempt.
        """
        began = self._state.get(attempt_key(self._loop, number))
        if began is None:
            raise FieldError("attempt", wanted="an attempt that was made", got=number)
        folds = self._state.entries(folds_of(self._loop, number))
        positions = [read_packed(key, folds[key].value, dict[int, int]) for key in sorted(folds)]
        return read_packed(attempt_key(self._loop, number), began.value, GuardState), positions

    def commit(
        self,
        state: GuardState,
        *,
        moves: list[Move] | None = None,
        begun: list[GuardState] | None = None,
        folds: list[tuple[int, dict[int, int]]] | None = None,
    ) -> GuardState:
        """Write a step and return the state with its new epoch.

        Args:
            state: the new state, with the epoch that it was made from.
            moves: events of the step.
            begun: attempts begun in it.
            folds: (attempt, positions after it) of each fold.

        Raises:
            FencedError: the committed state is no longer the one that this one was made from.
        """
        after, encode = msgspec.structs.replace(state, epoch=state.epoch + 1), msgspec.msgpack.encode
        written = {attempt_key(self._loop, one.attempt_number): encode(one) for one in begun or ()}
        for at, (number, until) in enumerate(folds or ()):
            written[fold_key(self._loop, number, after.epoch, at)] = encode(until)
        for at, told in enumerate(moves or ()):
            written[move_key(self._loop, after.epoch, at)] = encode(told)
        entry = self._state.get(guard_key(self._loop))
        try:
            if self._decoded(entry).epoch != state.epoch:
                raise StaleError(guard_key(self._loop), state.epoch)
            stands = None if entry is None else entry.version
            changes: dict[str, tuple[int | None, bytes | None]] = {key: (None, body) for key, body in written.items()}
            self._state.put({guard_key(self._loop): (stands, encode(after)), **changes}, by="guard")
        except StaleError as error:
            raise FencedError(f"guard of {self._loop}: another one moved it meanwhile; nothing was written") from error
        return after

    def publish(self, floor: float, ttl_s: float) -> GuardSnapshot:
        """Publish the snapshot of the committed state, and return it.

        Raises:
            StateError: State cannot be reached, or others kept publishing.
        """

        def made(before: bytes | None) -> bytes:
            # Looked at after what is published: whoever publishes a later state meanwhile makes this one stale.
            return encode_snapshot(_snapshot_of(self.load(), floor, ttl_s))

        return decode_snapshot(change(self._state, snapshot_key(self._loop), made) or b"")

    def _decoded(self, entry: Entry | None) -> GuardState:
        if entry is None:
            return GuardState(loop=self._loop)
        return read_packed(guard_key(self._loop), entry.value, GuardState)


def spent(state: State, loop: str) -> dict[str, int]:
    """Return what nobody looks at any more of a loop's guard, by key in State, with its bytes.

    These are the folds of attempts before the present one, since only that is replayed, and all but the latest moves.

    Raises:
        StateError: State cannot be reached.
    """
    entry = state.get(guard_key(loop))
    if entry is None:
        return {}
    present = folds_of(loop, read_packed(guard_key(loop), entry.value, GuardState).attempt_number)
    folds = {key: found for key, found in state.entries(all_folds_of(loop)).items() if key < present}
    moves = state.entries(moves_of(loop))
    old = folds | {key: moves[key] for key in sorted(moves)[:-MOVES]}
    return {key: len(found.value) for key, found in old.items()}


def _snapshot_of(state: GuardState, floor: float, ttl_s: float) -> GuardSnapshot:
    return GuardSnapshot(
        guard_version=state.guard_version,
        loop=state.loop,
        baseline_version=state.baseline_version,
        candidate_version=state.candidate_version if state.status in ("climbing", "frozen") else "",
        weight=state.parts[""].weight if "" in state.parts else 0.0,
        floor=floor,
        killed=state.status == "killed",
        n=sum(0 if part.sums is None else part.sums.decisions for part in state.parts.values()),
        expires_at=state.expires_at,
        ttl_s=ttl_s,
        segment="" if state.terms is None else state.terms.segment,
        weights={name: part.weight for name, part in state.parts.items() if name},
        unit="decision" if state.terms is None else state.terms.unit,
        episode_s=0.0 if state.terms is None else state.terms.episode_s,
    )
