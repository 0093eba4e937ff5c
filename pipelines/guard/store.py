"""Where a guard keeps its state: one SQLite file per loop, one transaction per step, and a fence between writers.

A step reads the state with its epoch and commits only if the epoch is still that one, so whatever a second aggregator
or an operator did meanwhile is never overwritten. The snapshot is published from what is committed, under the same
write lock: the file never goes back to an older version, and a crash before it is made good by the next step.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from decision.errors import FieldError
from decision.guard.snapshot import GuardSnapshot, encode_snapshot
from pipelines.files import open_sqlite, transaction, write_atomically
from pipelines.guard.state import GuardState
from pipelines.settings import Settings

_SCHEMA = """
CREATE TABLE IF NOT EXISTS state (id INTEGER PRIMARY KEY CHECK (id = 1), epoch INTEGER NOT NULL, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS attempts (number INTEGER PRIMARY KEY, candidate TEXT NOT NULL, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS folds (
    number INTEGER PRIMARY KEY, attempt INTEGER NOT NULL REFERENCES attempts, until BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS moves (number INTEGER PRIMARY KEY, body BLOB NOT NULL);
"""
_BUSY_S = 30.0


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
    """State, attempts, folds and moves of one loop's guard.

    Args:
        settings: the installation.
        loop: the loop's name.
    """

    def __init__(self, settings: Settings, loop: str) -> None:
        self.published = settings.guard_path(loop)
        self.path: Path = self.published.with_suffix(".db")
        self._loop = loop
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._open() as connection:
            connection.executescript(_SCHEMA)

    def load(self) -> GuardState:
        """Return the committed state."""
        with self._open() as connection:
            return self._load(connection)

    def moves(self, latest: int = 1000) -> list[Move]:
        """Return the `latest` moves, oldest first."""
        with self._open() as connection:
            found = connection.execute("SELECT body FROM moves ORDER BY number DESC LIMIT ?", (latest,)).fetchall()
        return [msgspec.msgpack.decode(body, type=Move) for (body,) in reversed(found)]

    def attempts_of(self, candidate: str) -> int:
        """Return how many attempts the version `candidate` has had."""
        with self._open() as connection:
            (count,) = connection.execute("SELECT COUNT(*) FROM attempts WHERE candidate = ?", (candidate,)).fetchone()
        return int(count)

    def attempt(self, number: int) -> tuple[GuardState, list[dict[int, int]]]:
        """Return the state in which an attempt began, and the positions after each of its folds.

        Raises:
            FieldError: there is no such attempt.
        """
        with self._open() as connection:
            row = connection.execute("SELECT body FROM attempts WHERE number = ?", (number,)).fetchone()
            folds = connection.execute(
                "SELECT until FROM folds WHERE attempt = ? ORDER BY number", (number,)
            ).fetchall()
        if row is None:
            raise FieldError("attempt", wanted="an attempt that was made", got=number)
        positions = [msgspec.msgpack.decode(until, type=dict[int, int]) for (until,) in folds]
        return msgspec.msgpack.decode(row[0], type=GuardState), positions

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
        after = msgspec.structs.replace(state, epoch=state.epoch + 1)
        encode = msgspec.msgpack.encode
        with self._open() as connection, transaction(connection):
            if self._load(connection).epoch != state.epoch:
                raise FencedError(f"guard of {self._loop}: another one moved it meanwhile; nothing was written")
            connection.execute("INSERT OR REPLACE INTO state VALUES (1, ?, ?)", (after.epoch, encode(after)))
            for attempt in begun or ():
                row = (attempt.attempt_number, attempt.candidate_version, encode(attempt))
                connection.execute("INSERT INTO attempts VALUES (?, ?, ?)", row)
            for number, until in folds or ():
                connection.execute("INSERT INTO folds (attempt, until) VALUES (?, ?)", (number, encode(until)))
            for move in moves or ():
                connection.execute("INSERT INTO moves (body) VALUES (?)", (encode(move),))
        return after

    def publish(self, floor: float, ttl_s: float) -> GuardSnapshot:
        """Write the snapshot of the committed state, atomically, and return it."""
        with self._open() as connection, transaction(connection):
            state = self._load(connection)
            snapshot = GuardSnapshot(
                guard_version=state.guard_version,
                loop=self._loop,
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
            write_atomically(self.published, encode_snapshot(snapshot))
        return snapshot

    def _load(self, connection: sqlite3.Connection) -> GuardState:
        row: Any = connection.execute("SELECT body FROM state").fetchone()
        return GuardState(loop=self._loop) if row is None else msgspec.msgpack.decode(row[0], type=GuardState)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with closing(open_sqlite(self.path, busy_s=_BUSY_S, synchronous="FULL")) as connection:
            yield connection
