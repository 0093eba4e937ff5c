"""State of the stream's features: decayed sums per subject, kept as decisions and outcomes arrive.

One SQLite file per loop holds the sums, the positions up to which the lake was seen, and the decisions whose outcomes
may still come. All of it changes in one transaction, so rows that are brought again change nothing. What a decision
contributes is settled by the join's own rules each time something is reported about it, and the difference is added.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import pyarrow as pa

from decision.decay import Decayed, merge
from decision.errors import FieldError
from decision.join import DROPPED, DecisionRows, OutcomeRows, match, settle
from pipelines.files import open_sqlite, transaction
from pipelines.interactions.settle import drawn_ids
from pipelines.interactions.window import rule_of
from pipelines.lake.lake import ConflictError
from pipelines.settings import LoopSettings

GRACE_US = 3_600_000_000
"""An outcome counts when it arrives on the log within the reward window and this, in microseconds, of its decision."""

Topic = Literal["decisions", "outcomes"]
Place = Literal["decisions", "outcomes", "conflicts"]
"""What has a position: the topics, and other answers to decisions."""
COLUMNS: dict[Topic, list[str]] = {
    "decisions": [
        *("partition", "offset", "appended_at", "event_id", "slot", "ts", "subject_id", "deferred"),
        *("action_ids", "action_index"),
    ],
    "outcomes": [
        *("partition", "offset", "appended_at", "event_id", "slot", "name", "value", "ts"),
        *("idempotency_key", "spool", "spool_offset", "action_id"),
    ],
}
"""What is needed of the lake's columns."""

_LONGEST_KEPT_US = 7 * 86_400_000_000
_FAR_US = 1 << 62
_WAIT_S = 60.0
_FORM = 2
"""Of the tables; those of another form are filled anew. The first knew neither drawn actions nor conflicts."""
_TABLES = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS positions (topic TEXT, "partition" INTEGER, next INTEGER, newest_us INTEGER,
    PRIMARY KEY (topic, "partition")) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS decisions (event_id TEXT, slot TEXT, subject_id TEXT, ts_us INTEGER,
    appended_us INTEGER, deferred INTEGER, action TEXT, conflicting INTEGER, counted REAL, outcomes REAL, reward REAL,
    PRIMARY KEY (event_id, slot)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS decisions_by_arrival ON decisions (appended_us);
CREATE INDEX IF NOT EXISTS decisions_by_subject ON decisions (subject_id);
CREATE TABLE IF NOT EXISTS outcomes (event_id TEXT, slot TEXT, "offset" INTEGER, name TEXT, value REAL, ts_us INTEGER,
    appended_us INTEGER, key TEXT, spool TEXT, spool_offset INTEGER, action TEXT,
    PRIMARY KEY (event_id, slot, "offset")) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS outcomes_by_arrival ON outcomes (appended_us);
CREATE TABLE IF NOT EXISTS subjects (subject_id TEXT PRIMARY KEY, decisions REAL, outcomes REAL, rewards REAL,
    at REAL, changed INTEGER) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS subjects_by_change ON subjects (changed);
CREATE TEMP TABLE IF NOT EXISTS touched (event_id TEXT, slot TEXT, PRIMARY KEY (event_id, slot)) WITHOUT ROWID;
"""


class Stream:
    """The state of one loop.

    Args:
        path: its file; created when it does not exist.
        loop: the reward's definition and the half-life.
    """

    def __init__(self, path: Path, loop: LoopSettings) -> None:
        self._rule = rule_of(loop)
        self._half_life_s = loop.features.half_life_s
        self._definition = msgspec.json.encode([self._rule, self._half_life_s]).decode()
        self._sql = open_sqlite(path, busy_s=_WAIT_S, synchronous="FULL", schema=_TABLES)
        with transaction(self._sql):
            if self._sql.execute("PRAGMA user_version").fetchone()[0] != _FORM:
                for table in ("positions", "decisions", "outcomes", "subjects"):
                    self._sql.execute(f"DROP TABLE {table}")
                for statement in _TABLES.split(";"):
                    self._sql.execute(statement)
                self._sql.execute(f"PRAGMA user_version = {_FORM}")

    def close(self) -> None:
        """Close the file."""
        self._sql.close()

    def positions(self) -> dict[tuple[Place, int], int]:
        """Return the offset that follows what was seen, by topic, or conflicts, and partition.

        Another half-life or reward definition than the state was made with empties the state: everything counts anew.
        """
        with self._transaction():
            rows = self._sql.execute('SELECT topic, "partition", next FROM positions').fetchall()
        return {(topic, partition): at for topic, partition, at in rows}

    def take(self, topic: Topic, rows: pa.Table, *, since: int | None = None) -> int:
        """Bring the sums up to date with `rows`, and return how many of them are new.

        Args:
            topic: what the rows are.
            rows: rows of the lake's table; those before the position are left out.
            since: there are no rows but these from this offset of each partition on; None does not check it.

        Raises:
            FieldError: a column is missing.
            ConflictError: the position lies before `since`: what is between them is not here.
        """
        for name in COLUMNS[topic]:
            if name not in rows.column_names:
                raise FieldError(name, wanted=f"a column of the {topic}", got=None)
        with self._transaction():
            new = self._beyond(topic, rows.select(COLUMNS[topic]).sort_by(_IN_ORDER), since)
            if len(new):
                self._sql.execute("DELETE FROM touched")
                (self._keep_decisions if topic == "decisions" else self._keep_outcomes)(new)
                self._settle()
        return len(new)

    def contest(self, events: Sequence[tuple[int, str]], partition: int, until: int) -> None:
        """Take away what decisions contribute that others answered as well, but for what names the action drawn.

        Args:
            events: offset of each other answer, with its event.
            partition: of the log.
            until: every other answer at a lower offset is among `events` or was before.
        """
        with self._transaction():
            place = ("conflicts", partition)
            at = self._sql.execute('SELECT next FROM positions WHERE topic = ? AND "partition" = ?', place).fetchone()
            new = [(event,) for offset, event in events if at is None or offset >= at[0]]
            if new:
                self._sql.execute("DELETE FROM touched")
                self._sql.executemany("UPDATE decisions SET conflicting = 1 WHERE event_id = ?", new)
                self._sql.executemany(
                    "INSERT OR IGNORE INTO touched SELECT event_id, slot FROM decisions WHERE event_id = ?", new
                )
                self._settle()
            if at is None or at[0] < until:
                self._sql.execute("REPLACE INTO positions VALUES (?, ?, ?, 0)", (*place, until))

    def publish(self, write: Callable[[int, int, dict[str, Decayed]], int]) -> int:
        """Hand the sums that changed since the last call to `write`, and return how many they were.

        Args:
            write: called with the number of this call, one more than that of the last one that succeeded; with the
                time that the last one returned; and with the changed sums by subject. Returns its own time. When it
                fails, or the process ends, the next call hands the sums over again under the same number.
        """
        with self._transaction():
            number = self._number()
            rows = self._sql.execute(
                "SELECT subject_id, decisions, outcomes, rewards, at FROM subjects WHERE changed = ?", (number,)
            ).fetchall()
            if rows:
                changed = {subject_id: Decayed(*sums) for subject_id, *sums in rows}
                self._set("published_us", write(number, int(self._get("published_us") or 0), changed))
                self._set("published", number)
        return len(rows)

    def forget_settled(self) -> None:
        """Drop the decisions and outcomes that nothing can be reported about any more."""
        with self._transaction():
            newest = dict(self._sql.execute("SELECT topic, max(newest_us) FROM positions GROUP BY topic").fetchall())
            if "decisions" not in newest:
                return
            # Outcomes that are not in the lake yet may wait behind a stop of their log, but not for ever.
            seen = min(newest["decisions"], newest.get("outcomes", 0))
            before = max(seen, newest["decisions"] - _LONGEST_KEPT_US) - GRACE_US
            for table in ("decisions", "outcomes"):
                self._sql.execute(f"DELETE FROM {table} WHERE appended_us < ?", (before - self._rule.window_us,))

    def subjects(self) -> dict[str, Decayed]:
        """Return the sums of all subjects."""
        rows = self._sql.execute("SELECT subject_id, decisions, outcomes, rewards, at FROM subjects")
        return {subject_id: Decayed(*sums) for subject_id, *sums in rows}

    def erase(self, subject_id: str) -> int:
        """Remove the subject's sums, decisions and their outcomes, and return how many rows there were."""
        self._sql.execute("PRAGMA secure_delete=ON")
        with self._transaction():
            theirs = "(SELECT event_id, slot FROM decisions WHERE subject_id = ?)"
            removed = self._sql.execute(
                f"DELETE FROM outcomes WHERE (event_id, slot) IN {theirs}", (subject_id,)
            ).rowcount
            for table in ("decisions", "subjects"):
                removed += self._sql.execute(f"DELETE FROM {table} WHERE subject_id = ?", (subject_id,)).rowcount
        self._sql.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # or the rows would stay readable in the WAL
        return removed

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with transaction(self._sql):  # one writer at a time, from its first look at the positions on
            if self._get("definition") != self._definition:
                for table in ("positions", "decisions", "outcomes", "subjects"):
                    self._sql.execute(f"DELETE FROM {table}")
                self._set("definition", self._definition)
            yield

    def _beyond(self, topic: Topic, rows: pa.Table, since: int | None) -> pa.Table:
        """Return the rows beyond the positions, and move these behind them."""
        parts: list[pa.Table] = []
        partitions = rows["partition"].to_numpy()
        for partition in np.unique(partitions).tolist():
            first, end = np.searchsorted(partitions, [partition, partition + 1])
            part = rows.slice(first, end - first)
            place = (topic, partition)
            at = self._sql.execute(
                'SELECT next, newest_us FROM positions WHERE topic = ? AND "partition" = ?', place
            ).fetchone() or (0, 0)
            if since is not None and at[0] < since:
                raise ConflictError(f"{topic}/{partition}: rows must go on at offset {at[0]}, begin at {since}")
            offsets = part["offset"].to_numpy()
            part = part.slice(int(np.searchsorted(offsets, at[0])))
            if len(part):
                newest = max(at[1], int(_us(part["appended_at"]).max()))
                self._sql.execute("REPLACE INTO positions VALUES (?, ?, ?, ?)", (*place, int(offsets[-1]) + 1, newest))
                parts.append(part)
        return pa.concat_tables(parts) if parts else rows.slice(0, 0)

    def _keep_decisions(self, rows: pa.Table) -> None:
        rows = rows.filter(rows["subject_id"].is_valid())
        rows = rows.append_column("action", pa.array(drawn_ids(rows), pa.string()))
        values = _tuples(rows, ["event_id", "slot", "subject_id", "ts", "appended_at", "deferred", "action"])
        self._sql.executemany("INSERT OR IGNORE INTO decisions VALUES (?, ?, ?, ?, ?, ?, ?, 0, 0, 0, 0)", values)
        self._touch(rows)

    def _keep_outcomes(self, rows: pa.Table) -> None:
        columns = ["event_id", "slot", "offset", "name", "value", "ts", "appended_at"]
        values = _tuples(rows, [*columns, "idempotency_key", "spool", "spool_offset", "action_id"])
        self._sql.executemany("INSERT OR IGNORE INTO outcomes VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
        self._touch(rows)

    def _touch(self, rows: pa.Table) -> None:
        self._sql.executemany("INSERT OR IGNORE INTO touched VALUES (?, ?)", _tuples(rows, ["event_id", "slot"]))

    def _settle(self) -> None:
        """Settle the touched decisions, and add what changed to their subjects' sums."""
        # what was reported of one slot, or of none, may activate the others
        self._sql.execute(
            "INSERT OR IGNORE INTO touched SELECT d.event_id, d.slot FROM decisions d"
            " WHERE d.deferred AND d.event_id IN (SELECT event_id FROM touched)"
        )
        decisions = self._sql.execute(
            "SELECT event_id, slot, subject_id, ts_us, deferred, action, conflicting, counted, outcomes, reward"
            " FROM touched JOIN decisions USING (event_id, slot)"
        ).fetchall()
        if not decisions:
            return
        outcomes = self._sql.execute(
            'SELECT event_id, slot, o.ts_us, o.name, o.value, o."offset", o.key, o.spool, o.spool_offset, o.action'
            " FROM (SELECT event_id, min(appended_us) AS since FROM touched JOIN decisions USING (event_id, slot)"
            " GROUP BY event_id) JOIN outcomes o USING (event_id)"
            " WHERE o.appended_us <= since + ?",
            (self._rule.window_us + GRACE_US,),
        ).fetchall()
        contributed = self._contributions(decisions, outcomes)
        changes: dict[str, Decayed] = {}
        updates: list[tuple[Any, ...]] = []
        for row, now in zip(decisions, contributed.tolist(), strict=True):
            event_id, slot, subject_id, ts_us, _, _, _, *before = row
            if now != before:
                change = Decayed(now[0] - before[0], now[1] - before[1], now[2] - before[2], ts_us / 1e6)
                changes[subject_id] = self._add(changes.get(subject_id, Decayed()), change)
                updates.append((*now, event_id, slot))
        self._sql.executemany(
            "UPDATE decisions SET counted = ?, outcomes = ?, reward = ? WHERE event_id = ? AND slot = ?", updates
        )
        number = self._number()
        for subject_id, change in changes.items():
            known = self._sql.execute(
                "SELECT decisions, outcomes, rewards, at FROM subjects WHERE subject_id = ?", (subject_id,)
            ).fetchone()
            sums = change if known is None else self._add(Decayed(*known), change)
            self._sql.execute("REPLACE INTO subjects VALUES (?, ?, ?, ?, ?, ?)", (subject_id, *sums, number))

    def _contributions(self, decisions: Sequence[Any], outcomes: Sequence[Any]) -> np.ndarray[Any, Any]:
        """Return [n, 3]: whether each decision counts, how many outcomes it has, and its reward as known so far."""
        column = list(zip(*outcomes, strict=True)) if outcomes else [()] * 10
        events = [row[0] for row in decisions]
        settled = settle(
            DecisionRows(
                np.array([row[3] for row in decisions], np.int64),
                np.array([row[4] for row in decisions], np.bool_),
                np.full(len(decisions), _FAR_US),
                match(events, events),
                [row[5] for row in decisions],
                np.array([row[6] for row in decisions], np.bool_),
            ),
            OutcomeRows(
                decision=match([row[:2] for row in decisions], [row[:2] for row in outcomes]),
                name=column[3],
                value=np.array(column[4], np.float64),
                ts=np.array(column[2], np.int64),
                offset=np.array(column[5], np.int64),
                identities=[_identities(row[3], *row[6:9]) for row in outcomes],
                event=match(events, [row[0] for row in outcomes]),
                whole=np.array([not row[1] for row in outcomes], np.bool_),
                action=column[9],
            ),
            rule=self._rule,
            now_us=_FAR_US,
        )
        counts = settled.state != DROPPED
        rewarding = np.array([column[3][row] == self._rule.outcome for row in settled.counted.tolist()], np.int64)
        reported = np.diff(np.r_[0, np.cumsum(rewarding)][settled.offsets])
        return np.column_stack((counts, counts * reported, np.where(counts, settled.reward, 0.0))).astype(np.float64)

    def _add(self, sums: Decayed, change: Decayed) -> Decayed:
        return merge(sums, change, half_life_s=self._half_life_s)

    def _number(self) -> int:
        return int(self._get("published") or 0) + 1

    def _get(self, name: str) -> Any:
        found = self._sql.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return None if found is None else found[0]

    def _set(self, name: str, value: int | str) -> None:
        self._sql.execute("REPLACE INTO meta VALUES (?, ?)", (name, value))


_IN_ORDER = [("partition", "ascending"), ("offset", "ascending")]


def _identities(name: str, key: str | None, spool: str | None, spool_offset: int | None) -> tuple[Hashable, ...]:
    reported: tuple[Hashable, ...] = () if key is None else ((name, key),)
    return reported if spool is None else (*reported, (spool, spool_offset))


def _us(column: pa.ChunkedArray) -> np.ndarray[Any, np.dtype[np.int64]]:
    return column.cast(pa.timestamp("us", "UTC")).cast(pa.int64()).to_numpy()


def _tuples(rows: pa.Table, names: Iterable[str]) -> Iterator[tuple[Any, ...]]:
    columns = (_us(rows[name]) if name in ("ts", "appended_at") else rows[name] for name in names)
    return zip(*(c.tolist() if isinstance(c, np.ndarray) else c.to_pylist() for c in columns), strict=True)
