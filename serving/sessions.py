"""Users' memories for a policy with memory: advanced by outcomes as they arrive, read at decision time, on disk.

One SQLite file per loop holds what happened to each user, in the order it arrived, and the vector that the policy in
charge makes of it. A decision and its outcome are one event and count once, however often they are delivered; the
positions up to which the log was read move in the same transaction, so that a crash neither loses nor repeats any. When
another policy takes charge, its vector is made from the history at the first look.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from decision.oracles.session import SessionOracle, Singles
from decision.policy import OraclePolicy
from decision.records import Decision, Outcome, decode_decision, decode_outcome
from pipelines.files import open_sqlite, transaction
from pipelines.log.protocol import EventLog
from pipelines.settings import Settings
from serving.loops import Loops
from serving.refresher import Refresher
from serving.snapshot import OnlineFeatures, Snapshot

LONGEST = 200
"""Events of a user that a memory is made of, the latest."""

_BATCH = 1_000
_WAIT_S = 60.0
_LATE_S = 10.0
_TABLES = """
CREATE TABLE IF NOT EXISTS positions (topic TEXT, part INTEGER, next INTEGER, PRIMARY KEY (topic, part)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS decided (event_id TEXT PRIMARY KEY, subject_id TEXT, action TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS early (event_id TEXT PRIMARY KEY, reward REAL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS events (number INTEGER PRIMARY KEY, event_id TEXT UNIQUE, subject_id TEXT, action TEXT,
    reward REAL);
CREATE INDEX IF NOT EXISTS events_by_subject ON events (subject_id, number);
CREATE TABLE IF NOT EXISTS states (subject_id TEXT PRIMARY KEY, policy TEXT, state BLOB) WITHOUT ROWID;
"""


class SessionStates:
    """The memories of one loop's users; safe to share between threads.

    Args:
        path: its file; created when it does not exist.
        loop: name of the loop; records of others are passed over.
    """

    def __init__(self, path: Path, loop: str) -> None:
        self._loop, self._lock = loop, threading.Lock()
        self._oracle: SessionOracle | None = None
        self._policy = ""
        self._sql = open_sqlite(path, busy_s=_WAIT_S, synchronous="NORMAL", schema=_TABLES)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._sql.close()

    def use(self, oracle: SessionOracle) -> None:
        """Make memories for `oracle` from now on."""
        digest = sha256(b"".join(oracle.save().values())).hexdigest()
        with self._lock:
            self._oracle, self._policy = oracle, digest

    def online(self, subject_id: str) -> dict[str, Any]:
        """Return ``{"session": [f + h numbers]}`` of a user, {} when nothing happened to him or no policy is used."""
        with self._lock:
            if self._oracle is None:
                return {}
            state = self._state(self._oracle, subject_id)
        return {} if state is None else {"session": state.astype(np.float64).tolist()}

    def follow(self, log: EventLog, beat: Callable[[], None] = lambda: None) -> int:
        """Read what is new on `log` and advance the memories; return the number of outcomes that counted.

        Args:
            log: where decisions and outcomes arrive.
            beat: called as the reading gets on.
        """
        counted = 0
        for topic in ("decisions", "outcomes"):
            for part in range(log.partitions(topic)):
                while True:
                    beat()
                    with self._lock:
                        low, _ = log.watermarks(topic, part)
                        at = max(self._position(topic, part), low)
                        messages = log.read(topic, part, at, max_messages=_BATCH)
                        if not messages:
                            break
                        with transaction(self._sql):
                            for message in messages:
                                if topic == "decisions":
                                    counted += self._decided(decode_decision(message.value))
                                else:
                                    counted += self._reported(decode_outcome(message.value))
                            after = messages[-1].offset + 1
                            self._sql.execute("INSERT OR REPLACE INTO positions VALUES (?, ?, ?)", (topic, part, after))
        return counted

    def history(self, subject_id: str) -> list[tuple[str, float]]:
        """Return (action, reward) of a user's latest events, the oldest first."""
        rows = self._sql.execute(
            "SELECT action, reward FROM events WHERE subject_id = ? ORDER BY number DESC LIMIT ?", (subject_id, LONGEST)
        ).fetchall()
        return [(action, reward) for action, reward in reversed(rows)]

    def _position(self, topic: str, part: int) -> int:
        row = self._sql.execute("SELECT next FROM positions WHERE topic = ? AND part = ?", (topic, part)).fetchone()
        return 0 if row is None else int(row[0])

    def _decided(self, record: Decision) -> int:
        if record.loop != self._loop or record.subject_id is None or record.slot:
            return 0
        action = record.action_ids[record.action_index]
        self._sql.execute(
            "INSERT OR IGNORE INTO decided VALUES (?, ?, ?)", (record.event_id, record.subject_id, action)
        )
        # Topics are read one after the other, so an outcome may be seen before its decision.
        early = self._sql.execute(
            "DELETE FROM early WHERE event_id = ? RETURNING reward", (record.event_id,)
        ).fetchone()
        return 0 if early is None else self._count(record.event_id, record.subject_id, action, float(early[0]))

    def _reported(self, outcome: Outcome) -> int:
        if outcome.loop != self._loop or outcome.name != "reward" or outcome.slot:
            return 0
        row = self._sql.execute(
            "SELECT subject_id, action FROM decided WHERE event_id = ?", (outcome.event_id,)
        ).fetchone()
        if row is None:
            self._sql.execute("INSERT OR IGNORE INTO early VALUES (?, ?)", (outcome.event_id, outcome.value))
            return 0
        return self._count(outcome.event_id, row[0], row[1], outcome.value)

    def _count(self, event_id: str, subject_id: str, action: str, reward: float) -> int:
        before = None if self._oracle is None else self._state(self._oracle, subject_id)
        added = self._sql.execute(
            "INSERT OR IGNORE INTO events (event_id, subject_id, action, reward) VALUES (?, ?, ?, ?)",
            (event_id, subject_id, action, reward),
        ).rowcount
        if added and self._oracle is not None:
            state = self._oracle.start() if before is None else before
            self._keep(subject_id, self._oracle.advance(state, action, reward))
        return added

    def _state(self, oracle: SessionOracle, subject_id: str) -> Singles | None:
        row = self._sql.execute("SELECT policy, state FROM states WHERE subject_id = ?", (subject_id,)).fetchone()
        if row is not None and row[0] == self._policy:
            return np.frombuffer(row[1], "<f4").astype(np.float32)
        state, events = oracle.start(), self.history(subject_id)
        for action, reward in events:
            state = oracle.advance(state, action, reward)
        if not events:
            return None
        self._keep(subject_id, state)
        return state

    def _keep(self, subject_id: str, state: Singles) -> None:
        packed = state.astype("<f4").tobytes()
        self._sql.execute("INSERT OR REPLACE INTO states VALUES (?, ?, ?)", (subject_id, self._policy, packed))


class Sessions:
    """Memories for every loop whose policy in charge has one, kept up to date by a thread.

    Args:
        settings: the installation, whose loops' folders hold the memories.
        loops: what answers in each loop.
        log: where decisions and outcomes arrive.
        inner: the other features of a loop, which its memories join.
        pause_s: seconds between looks at the log.
    """

    def __init__(
        self,
        settings: Settings,
        loops: Loops,
        log: EventLog,
        inner: Callable[[Snapshot], OnlineFeatures | None],
        *,
        pause_s: float = 0.05,
    ) -> None:
        self._settings, self._loops, self._log, self._inner = settings, loops, log, inner
        self._states: dict[str, SessionStates] = {}
        self._used: dict[str, str] = {}
        # It looks often for the sake of fresh memories; a busy machine may pause it for longer than ten such looks.
        self.refresher = Refresher("sessions", self.refresh, period_s=pause_s, late_after_s=max(_LATE_S, 10 * pause_s))
        self.refresh()

    def start(self) -> None:
        """Keep up with the log in a thread."""
        self.refresher.start()

    def close(self) -> None:
        """Stop, and close the files; does nothing when it was closed before."""
        self.refresher.close()
        states, self._states = self._states, {}
        for kept in states.values():
            kept.close()

    def source(self, snapshot: Snapshot) -> OnlineFeatures | None:
        """Return where the features of the snapshot's loop are looked up, memories among them."""
        inner, states = self._inner(snapshot), self._states.get(snapshot.loop.name)
        return inner if states is None else _Joined(inner, states)

    def refresh(self) -> int:
        """Take note of new policies and read the log once; return the number of outcomes that counted."""
        counted = 0
        for name in self._loops.names():
            snapshot = self._loops.get(name)
            policy = None if snapshot is None else snapshot.policy
            if snapshot is None or not isinstance(policy, OraclePolicy) or not isinstance(policy.oracle, SessionOracle):
                continue
            states = self._states.get(name)
            if states is None:
                path = self._settings.loop_path(name).parent / "sessions.sqlite"
                states = self._states[name] = SessionStates(path, name)
            if self._used.get(name) != snapshot.policy_version:
                states.use(policy.oracle)
                self._used[name] = snapshot.policy_version
            counted += states.follow(self._log, self.refresher.beat)
        return counted


class _Joined:
    """Features of both sources; a memory is looked up where the policy in charge has one."""

    def __init__(self, inner: OnlineFeatures | None, states: SessionStates) -> None:
        self._inner, self._states = inner, states

    def online_many(self, subject_ids: Sequence[str], at: datetime) -> list[dict[str, Any]]:
        """Return each subject's features and memory."""
        memories = [self._states.online(subject_id) for subject_id in subject_ids]
        if self._inner is None:
            return memories
        return [
            found | memory for found, memory in zip(self._inner.online_many(subject_ids, at), memories, strict=True)
        ]
