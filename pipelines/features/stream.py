"""Outcomes become features: decayed statistics per subject, pushed online and kept as history.

State, positions and an outbox change in one SQLite transaction, so a crash neither loses nor repeats an outcome; the
outbox is then written to the history and to the online store, which a repetition does not change.
"""

from __future__ import annotations

import os
import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from decision.decay import Decayed, add
from pipelines.features.store import STREAM_FEATURES, SUBJECT, TIMESTAMP, Store
from pipelines.lake import Lake
from pipelines.settings import LoopSettings, Settings

_SCHEMA = """
CREATE TABLE IF NOT EXISTS state (subject TEXT PRIMARY KEY, count REAL, total REAL, at REAL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS positions (partition INTEGER PRIMARY KEY, offset INTEGER);
CREATE TABLE IF NOT EXISTS seen (key TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS outbox (seq INTEGER, subject TEXT, ts REAL, outcomes REAL, mean_reward REAL);
CREATE TABLE IF NOT EXISTS pushes (seq INTEGER PRIMARY KEY AUTOINCREMENT, ts REAL);
"""


def push(settings: Settings, loop: LoopSettings, lake: Lake, *, now: datetime) -> int:
    """Fold the lake's new outcomes into their subjects' features and put them online.

    Args:
        settings: the installation.
        loop: the loop; its reward's outcome name and half-life are used.
        lake: where outcomes and decisions stand.
        now: time from which on the new values hold, UTC; never before the previous push.

    Returns:
        Subjects whose features changed.
    """
    store = Store(settings, loop)
    store.folder.mkdir(parents=True, exist_ok=True)
    db = sqlite3.connect(store.folder / "stream.db", isolation_level=None)
    try:
        db.executescript(_SCHEMA)
        db.execute("PRAGMA synchronous=FULL")
        _publish(db, store)
        db.execute("BEGIN IMMEDIATE")
        try:
            changed = _fold(db, loop, lake, now.astimezone(UTC))
            db.execute("COMMIT")
        except BaseException:
            db.execute("ROLLBACK")
            raise
        _publish(db, store)
        return changed
    finally:
        db.close()


def _fold(db: sqlite3.Connection, loop: LoopSettings, lake: Lake, now: datetime) -> int:
    positions: dict[int, int] = dict(db.execute("SELECT partition, offset FROM positions"))
    outcomes = _new_outcomes(lake, loop, positions)
    if outcomes.num_rows == 0:
        return 0
    subjects = _subjects_of(lake, loop.name, outcomes.column("event_id").unique())
    changed: dict[str, Decayed] = {}
    for row in outcomes.to_pylist():
        positions[row["partition"]] = max(positions.get(row["partition"], 0), row["offset"] + 1)
        subject = subjects.get(row["event_id"])
        if subject is None or row["name"] != loop.reward.outcome or _is_repeated(db, row):
            continue
        state = changed.get(subject) or _state(db, subject)
        value = min(max(row["value"], loop.reward.minimum), loop.reward.maximum)
        changed[subject] = add(state, value, row["ts"].timestamp(), half_life_s=loop.features.half_life_s)
    last = db.execute("SELECT max(ts) FROM pushes").fetchone()[0]
    at = max(now.timestamp(), (last or 0.0) + 1e-6)
    (seq,) = db.execute("INSERT INTO pushes (ts) VALUES (?) RETURNING seq", (at,)).fetchone()
    for subject, state in sorted(changed.items()):
        db.execute("INSERT OR REPLACE INTO state VALUES (?, ?, ?, ?)", (subject, state.events, state.total, state.at))
        db.execute("INSERT INTO outbox VALUES (?, ?, ?, ?, ?)", (seq, subject, at, state.events, state.mean))
    db.executemany("INSERT OR REPLACE INTO positions VALUES (?, ?)", sorted(positions.items()))
    return len(changed)


def _publish(db: sqlite3.Connection, store: Store) -> None:
    """Write what waits in the outbox to the history, then online, then forget it."""
    for (seq,) in db.execute("SELECT DISTINCT seq FROM outbox ORDER BY seq").fetchall():
        rows = db.execute("SELECT subject, ts, outcomes, mean_reward FROM outbox WHERE seq = ?", (seq,)).fetchall()
        stamps = [datetime.fromtimestamp(row[1], UTC) for row in rows]
        table = pa.table(
            {
                SUBJECT: pa.array([row[0] for row in rows], pa.string()),
                TIMESTAMP: pa.array(stamps, pa.timestamp("us", "UTC")),
                STREAM_FEATURES[0]: pa.array([row[2] for row in rows], pa.float64()),
                STREAM_FEATURES[1]: pa.array([row[3] for row in rows], pa.float64()),
            }
        )
        _write(table, store.history / f"{seq}.parquet")
        frame: pd.DataFrame = table.to_pandas()
        store.put_online(frame)
        db.execute("DELETE FROM outbox WHERE seq = ?", (seq,))


def _write(table: pa.Table, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".new")
    pq.write_table(table, scratch)
    os.replace(scratch, path)


def _new_outcomes(lake: Lake, loop: LoopSettings, positions: dict[int, int]) -> pa.Table:
    data = lake.table("outcomes").to_pyarrow_dataset()
    wanted = pc.field("loop") == loop.name
    passed = [(pc.field("partition") == p) & (pc.field("offset") < offset) for p, offset in positions.items()]
    for condition in passed:
        wanted &= ~condition
    columns = ["partition", "offset", "event_id", "slot", "name", "value", "ts", "idempotency_key"]
    table = data.to_table(columns=columns, filter=wanted)
    return table.sort_by([("partition", "ascending"), ("offset", "ascending")])


def _subjects_of(lake: Lake, loop: str, event_ids: Any) -> dict[str, str]:
    data = lake.table("decisions").to_pyarrow_dataset()
    wanted = (pc.field("loop") == loop) & pc.field("event_id").isin(event_ids)
    table = data.to_table(columns=["event_id", "subject_id"], filter=wanted)
    return {e: s for e, s in zip(*(table.column(i).to_pylist() for i in range(2)), strict=True) if s is not None}


def _is_repeated(db: sqlite3.Connection, row: dict[str, Any]) -> bool:
    if row["idempotency_key"] is None:
        return False
    key = "\x00".join((row["event_id"], row["slot"], row["name"], row["idempotency_key"]))
    return db.execute("INSERT OR IGNORE INTO seen VALUES (?)", (key,)).rowcount == 0


def _state(db: sqlite3.Connection, subject: str) -> Decayed:
    row = db.execute("SELECT count, total, at FROM state WHERE subject = ?", (subject,)).fetchone()
    return Decayed() if row is None else Decayed(*row)
