"""Users' memories on disk: what was decided and reported, as it came on the log, and what policies make of it.

One SQLite file per loop, for any number of processes of one machine. A record counts once, however often it is
delivered; the positions up to which the log was read move in the same transaction, so a crash neither loses nor repeats
any. `decision.memory` says what a memory is; here are its marks to go on from, by user and policy.
"""

from __future__ import annotations

import sqlite3
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from decision.errors import FieldError
from decision.join import RewardRule
from decision.memory import Going, Mark, Report, Turn, first_of, gone_on, known_at, mark_before
from decision.oracles.session import SessionOracle
from decision.policy import OraclePolicy
from decision.protocols import Policy
from decision.records import Decision, Outcome, decode_decision, decode_outcome
from pipelines.files import open_sqlite, transaction
from pipelines.log.protocol import DECISIONS, OUTCOMES, TOPICS, EventLog, Message

MEMORIES = "sessions.sqlite"
"""Name of a loop's file, in the loop's folder."""
HELD = 20_000
"""Users whose memories are held in memory, about."""

_BATCH = 1_000
_POLICIES = 4
_WAIT_S = 60.0
_VERSION = 2
_TABLES = """
CREATE TABLE IF NOT EXISTS positions (topic TEXT, part INTEGER, next INTEGER, PRIMARY KEY (topic, part)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS users (subject_id TEXT PRIMARY KEY, turns INTEGER) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS turns (subject_id TEXT, ts INTEGER, event_id TEXT, action TEXT, deferred INTEGER,
    appended INTEGER, PRIMARY KEY (subject_id, ts, event_id)) WITHOUT ROWID;
CREATE UNIQUE INDEX IF NOT EXISTS turns_by_event ON turns (event_id);
CREATE TABLE IF NOT EXISTS reports (event_id TEXT, number INTEGER, name TEXT, value REAL, ts INTEGER, arrived INTEGER,
    key TEXT, PRIMARY KEY (event_id, number)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS states (subject_id TEXT, policy TEXT, first INTEGER, marks BLOB,
    PRIMARY KEY (subject_id, policy)) WITHOUT ROWID;
"""
# Files of an earlier form held what a policy needs no more; the log has all of it.
_EARLIER = "DROP TABLE IF EXISTS {}"
_TURNS = """
SELECT t.ts, t.event_id, t.action, t.deferred, t.appended, r.name, r.value, r.ts, r.arrived, r.key
FROM (SELECT * FROM turns WHERE subject_id = ? AND (ts, event_id) > (?, ?) AND ts < ?
      ORDER BY ts DESC, event_id DESC LIMIT ?) t
LEFT JOIN reports r ON r.event_id = t.event_id
ORDER BY t.ts, t.event_id, r.number
"""
_EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
_marks_of = msgspec.msgpack.Decoder(list[tuple[int, str, int, int, bytes]]).decode


class Remembering(NamedTuple):
    """Whose memories are asked for; made by `remembering`.

    Attributes:
        oracle: what advances them.
        rule: the loop's definition of a reward.
        digest: of both.
    """

    oracle: SessionOracle
    rule: RewardRule
    digest: str


def memory_of(policy: Policy | None) -> SessionOracle | None:
    """Return the oracle of a policy with memory, None for any other."""
    return policy.oracle if isinstance(policy, OraclePolicy) and isinstance(policy.oracle, SessionOracle) else None


def remembering(oracle: SessionOracle, rule: RewardRule) -> Remembering:
    """Return what makes memories for `oracle` by the loop's definition of a reward."""
    return Remembering(oracle, rule, sha256(b"".join([*oracle.save().values(), repr(rule).encode()])).hexdigest())


def positions_in(path: Path) -> dict[tuple[str, int], int]:
    """Return how far the memories in a file have read the log, by (topic, partition).

    Raises:
        OSError: the file cannot be read.
    """
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as file:
            return {(topic, part): at for topic, part, at in file.execute("SELECT topic, part, next FROM positions")}
    except sqlite3.Error as error:
        raise OSError(f"{path}: {error}") from error


class _Found(NamedTuple):
    state: list[float] | None
    since_us: int
    until_us: int


class Memories:
    """The memories of one loop's users; safe to share between threads.

    Args:
        path: its file; created when it does not exist.
        loop: name of the loop; records of others are passed over.
    """

    def __init__(self, path: Path, loop: str) -> None:
        self._loop = loop
        self._writing, self._reading = threading.Lock(), threading.Lock()
        self._used: Sequence[Remembering] = ()
        self._young: dict[str, dict[str, _Found]] = {}
        self._old: dict[str, dict[str, _Found]] = {}
        self._changes = 0
        self._writer = open_sqlite(path, busy_s=_WAIT_S, synchronous="NORMAL")
        _prepare(self._writer)
        self._reader = open_sqlite(path, busy_s=_WAIT_S, synchronous="NORMAL")
        self._seen = self._foreign()

    def close(self) -> None:
        """Close the file; does nothing when it was closed before."""
        with self._writing, self._reading:
            self._writer.close()
            self._reader.close()

    def use(self, used: Sequence[Remembering]) -> None:
        """Go on with the memories of `used` from now on as records come in; those of others are made when asked for."""
        kept = [each.digest for each in used]
        with self._writing:
            self._used = tuple(used)
            with transaction(self._writer):
                marks = ",".join("?" * len(kept))
                self._writer.execute(f"DELETE FROM states WHERE policy NOT IN ({marks})", kept)
            self._forget()

    def online(self, subject_id: str, at: datetime, used: Remembering) -> list[float] | None:
        """Return the [f + h] numbers that `used` makes of a user at the time `at`; None when nothing is known."""
        at_us = micros(at)
        held = self._young.get(subject_id) or self._old.get(subject_id)
        found = None if held is None else held.get(used.digest)
        if found is None or not found.since_us <= at_us < found.until_us:
            changes = self._changes
            with self._reading, _snapshot(self._reader):
                found = self._computed(used, subject_id, at_us)
            if changes == self._changes:
                self._hold(subject_id, used, found)
        return found.state

    def online_many(
        self, subject_ids: Sequence[str], at: datetime, wanted: Mapping[str, Remembering]
    ) -> list[dict[str, list[float]]]:
        """Return what each of `wanted` makes of each user, by their names, of those of whom something is known."""
        found = [{name: self.online(each, at, used) for name, used in wanted.items()} for each in subject_ids]
        return [{name: state for name, state in held.items() if state is not None} for held in found]

    def follow(self, log: EventLog, at: datetime, beat: Callable[[], None] = lambda: None) -> int:
        """Read what is new on `log` and go on with the memories of whom it is about; return the records that counted.

        Args:
            log: where decisions and outcomes arrive.
            at: now.
            beat: called as the reading gets on.
        """
        counted = 0
        for topic in TOPICS:
            for part in range(log.partitions(topic)):
                while True:
                    beat()
                    low, _ = log.watermarks(topic, part)
                    with self._writing:
                        before = self._position(topic, part)
                        messages = log.read(topic, part, max(before, low), max_messages=_BATCH)
                        if not messages:
                            break
                        changed = set[str]()
                        with transaction(self._writer):
                            if self._position(topic, part) == before:  # else another process has read them
                                counted += self._taken(topic, messages, micros(at), changed)
                                after = (topic, part, messages[-1].offset + 1)
                                self._writer.execute("INSERT OR REPLACE INTO positions VALUES (?, ?, ?)", after)
                        self._forget(changed)
        with self._writing:
            foreign = self._foreign()
            if foreign != self._seen:
                self._seen = foreign
                self._forget()
        return counted

    def history(self, subject_id: str, at: datetime) -> list[Turn]:
        """Return the latest of a user's turns before `at`, as many as a memory is made of, in order of time."""
        with self._reading, _snapshot(self._reader):
            count = self._count(self._reader, subject_id, micros(at))
            first = first_of(count)
            return self._turns(self._reader, subject_id, (-1, ""), micros(at), count - first)

    def erase(self, subject_id: str) -> int:
        """Remove everything about a user, and return how many turns that were."""
        with self._writing:
            with transaction(self._writer):
                theirs = "SELECT event_id FROM turns WHERE subject_id = ?"
                self._writer.execute(f"DELETE FROM reports WHERE event_id IN ({theirs})", (subject_id,))
                gone = self._writer.execute("DELETE FROM turns WHERE subject_id = ?", (subject_id,)).rowcount
                for table in ("users", "states"):
                    self._writer.execute(f"DELETE FROM {table} WHERE subject_id = ?", (subject_id,))
            self._forget()
        return gone

    def _taken(self, topic: str, messages: Iterable[Message], at_us: int, subjects: set[str]) -> int:
        """Keep records, go on with the memories of the `subjects` that they are about, and return how many counted."""
        changed: defaultdict[str, list[tuple[int, str]]] = defaultdict(list)
        counted = 0
        for message in messages:
            with suppress(FieldError):  # emptied by an erasure, or no record: ingestion keeps those that are none
                if topic == DECISIONS:
                    found = self._decided(decode_decision(message.value), message)
                elif topic == OUTCOMES:
                    found = self._reported(decode_outcome(message.value), message)
                else:
                    continue
                if found is not None:
                    counted += 1
                    if found[0] is not None:
                        changed[found[0]].append(found[1])
        subjects.update(changed)
        for subject_id, turns in changed.items():
            for used in self._used:
                self._go_on(used, subject_id, min(turns), at_us)
        return counted

    def _decided(self, record: Decision, message: Message) -> tuple[str, tuple[int, str]] | None:
        if record.loop != self._loop or record.subject_id is None or record.slot:
            return None
        turn = (micros(record.ts), record.event_id)
        row = (record.subject_id, *turn, record.action_ids[record.action_index], record.deferred, message.ts_ms * 1000)
        if not self._writer.execute("INSERT OR IGNORE INTO turns VALUES (?, ?, ?, ?, ?, ?)", row).rowcount:
            return None
        more = "INSERT INTO users VALUES (?, 1) ON CONFLICT DO UPDATE SET turns = turns + 1"
        self._writer.execute(more, (record.subject_id,))
        return record.subject_id, turn

    def _reported(self, record: Outcome, message: Message) -> tuple[str | None, tuple[int, str]] | None:
        if record.loop != self._loop or record.slot:
            return None
        row = (record.event_id, message.offset, record.name, record.value, micros(record.ts), message.ts_ms * 1000)
        row = (*row, record.idempotency_key)
        if not self._writer.execute("INSERT OR IGNORE INTO reports VALUES (?, ?, ?, ?, ?, ?, ?)", row).rowcount:
            return None
        # Topics are read one after the other, so an outcome may be seen before its decision.
        whose = "SELECT subject_id, ts FROM turns WHERE event_id = ?"
        found = self._writer.execute(whose, (record.event_id,)).fetchone()
        return (None, (0, "")) if found is None else (found[0], (found[1], record.event_id))

    def _go_on(self, used: Remembering, subject_id: str, changed: tuple[int, str], at_us: int) -> None:
        """Make the memory of a user anew whose turn `changed` is the first that did."""
        first, marks = self._marks(self._writer, used, subject_id)
        marks = [mark for mark in marks if mark.after < changed]
        count = self._count(self._writer, subject_id, at_us)
        going = self._going(self._writer, used, subject_id, at_us, first, marks, count)
        packed = [
            (*mark.after, mark.since_us, mark.until_us, mark.state.astype("<f4").tobytes()) for mark in going.marks
        ]
        row = (subject_id, used.digest, first_of(count), msgspec.msgpack.encode(packed))
        self._writer.execute("INSERT OR REPLACE INTO states VALUES (?, ?, ?, ?)", row)

    def _computed(self, used: Remembering, subject_id: str, at_us: int) -> _Found:
        count = self._count(self._reader, subject_id, at_us)
        first, marks = self._marks(self._reader, used, subject_id)
        going = self._going(self._reader, used, subject_id, at_us, first, marks, count)
        return _Found(None if going.state is None else going.state.tolist(), at_us, going.until_us)

    def _going(
        self,
        sql: sqlite3.Connection,
        used: Remembering,
        subject_id: str,
        at_us: int,
        first: int,
        marks: list[Mark],
        count: int,
    ) -> Going:
        if first != first_of(count):
            marks = []
        mark = mark_before(marks, at_us)
        after = (-1, "") if mark is None else mark.after
        turns = self._turns(sql, subject_id, after, at_us, count - first_of(count))
        return gone_on(used.oracle, marks, turns, used.rule, at_us)

    def _count(self, sql: sqlite3.Connection, subject_id: str, at_us: int) -> int:
        """Return how many turns a user had before `at_us`."""
        row = sql.execute("SELECT turns FROM users WHERE subject_id = ?", (subject_id,)).fetchone()
        if row is None:
            return 0
        later = "SELECT count(*) FROM turns WHERE subject_id = ? AND ts >= ?"
        return row[0] - sql.execute(later, (subject_id, at_us)).fetchone()[0]

    def _turns(
        self, sql: sqlite3.Connection, subject_id: str, after: tuple[int, str], at_us: int, latest: int
    ) -> list[Turn]:
        turns: list[Turn] = []
        reports: list[Report] = []
        for ts, event_id, action, deferred, appended, name, value, happened, arrived, key in sql.execute(
            _TURNS, (subject_id, *after, at_us, latest)
        ):
            if not turns or turns[-1].event_id != event_id:
                reports = []
                turns.append(Turn(ts, event_id, action, bool(deferred), reports))
            if name is not None:
                reports.append(Report(name, value, happened, known_at(ts, appended, happened, arrived), key))
        return turns

    def _marks(self, sql: sqlite3.Connection, used: Remembering, subject_id: str) -> tuple[int, list[Mark]]:
        query = "SELECT first, marks FROM states WHERE subject_id = ? AND policy = ?"
        row = sql.execute(query, (subject_id, used.digest)).fetchone()
        if row is None:
            return 0, []
        held = _marks_of(row[1])
        return row[0], [
            Mark((ts, event), np.frombuffer(state, "<f4"), since, until) for ts, event, since, until, state in held
        ]

    def _position(self, topic: str, part: int) -> int:
        row = self._writer.execute("SELECT next FROM positions WHERE topic = ? AND part = ?", (topic, part)).fetchone()
        return 0 if row is None else int(row[0])

    def _foreign(self) -> int:
        """Return a number that changes when another process has written."""
        return self._writer.execute("PRAGMA data_version").fetchone()[0]

    def _hold(self, subject_id: str, used: Remembering, found: _Found) -> None:
        # Two halves, of which the older is dropped whole: those not asked about go without a list of uses.
        if len(self._young) >= HELD // 2:
            self._old, self._young = self._young, {}
        before = self._young.get(subject_id) or self._old.get(subject_id) or {}
        rest = {digest: each for digest, each in before.items() if len(before) < _POLICIES}
        self._young[subject_id] = rest | {used.digest: found}

    def _forget(self, subjects: Iterable[str] | None = None) -> None:
        """Look at the file again for `subjects`, None for all; what is being read now is not held."""
        self._changes += 1
        if subjects is None:
            self._young, self._old = {}, {}
            return
        for subject_id in subjects:
            self._young.pop(subject_id, None)
            self._old.pop(subject_id, None)


def micros(at: datetime) -> int:
    """Return a time in microseconds since 1970."""
    since = at - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


@contextmanager
def _snapshot(sql: sqlite3.Connection) -> Iterator[None]:
    """Read one state of the file."""
    sql.execute("BEGIN")
    try:
        yield
    finally:
        sql.execute("COMMIT")


def _prepare(sql: sqlite3.Connection) -> None:
    with transaction(sql):
        if sql.execute("PRAGMA user_version").fetchone()[0] != _VERSION:
            for table in ("positions", "decided", "early", "events", "states", "users", "turns", "reports"):
                sql.execute(_EARLIER.format(table))
            sql.execute(f"PRAGMA user_version = {_VERSION}")
        for statement in _TABLES.split(";"):
            sql.execute(statement)
