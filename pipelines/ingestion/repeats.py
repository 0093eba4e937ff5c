"""Decisions whose event has one already: repetitions of it, which are left out, and other answers, which conflict.

What is remembered reaches back to an offset of each log partition, and that stands in the table beside the position:
whoever goes on reads it from there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from decision.batch import Ints
from decision.records import Decision, encode
from pipelines.ingestion.columns import RAW_FIELDS
from pipelines.ingestion.conflicts import CONFLICT
from pipelines.ingestion.dedup import Seen
from pipelines.ingestion.parse import DeadLetter
from pipelines.lake.lake import Lake
from pipelines.lake.schemas import DECISION_FIELDS, TIME
from pipelines.lake.tables import mark_of
from pipelines.log.protocol import DECISIONS, Message

_ANSWER = ("action_index", "propensity", "policy_version", "seed")
"""Columns in which a repeated decision is equal to the first, or it is another answer."""
_Key = tuple[str, str, str]
_Answer = tuple[int, float, str, int]


def seen_mark(partition: int) -> str:
    """Return the name of the mark that says from which offset on events are remembered."""
    return f"seen/{partition}"


@dataclass
class Sorted:
    """What decisions came to.

    Attributes:
        rows: those that are the first of their event and slot.
        dead: those that conflict.
        duplicates: number of repetitions, by loop and partition.
        conflicts: number of those that conflict, likewise.
        first: from which offset on events are remembered, by partition.
    """

    rows: pa.Table
    dead: list[DeadLetter] = field(default_factory=list)
    duplicates: Counter[tuple[str, int]] = field(default_factory=Counter)
    conflicts: Counter[tuple[str, int]] = field(default_factory=Counter)
    first: dict[int, int] = field(default_factory=dict)


class Repeats:
    """What is remembered of the decisions of some log partitions.

    Args:
        lake: the tables.
        table: the decisions, as they are.
        partitions: which of the log's.
        horizon_ms: how long after a decision a repetition is recognised, in milliseconds of the log's progress.
    """

    def __init__(self, lake: Lake, table: DeltaTable, partitions: Sequence[int], horizon_ms: int) -> None:
        self._lake = lake
        self._seen = {partition: Seen(horizon_ms) for partition in partitions}
        files = pa.table(table.get_add_actions(flatten=True))
        if "max.appended_at" not in files.column_names:
            return
        newest = pc.call_function("max", [files["max.appended_at"]]).cast(pa.int64()).as_py()
        if newest is not None:
            for partition in partitions:
                self._remember(table, partition, newest - 1000 * horizon_ms)

    def __len__(self) -> int:
        return sum(map(len, self._seen.values()))

    def _remember(self, table: DeltaTable, partition: int, since_us: int) -> None:
        first = mark_of(table, seen_mark(partition))
        if first is None:  # the table is of older code, which went by the clock
            recent = pc.field("appended_at") >= pa.scalar(since_us, pa.int64()).cast(TIME)
        else:
            recent = pc.field("offset") >= first
        recent &= pc.field("partition") == partition
        rows, seen = table.to_pyarrow_dataset(), self._seen[partition]
        offsets, arrived_ms = _places(rows.to_table(["offset", "appended_at"], filter=recent))
        order = np.argsort(offsets, kind="stable")
        seen.advance(offsets[order], arrived_ms[order])
        for batch in rows.to_batches(columns=["loop", "event_id", "slot", "offset"], filter=recent):
            seen.add(_hashes(_keys(batch)), batch["offset"].to_numpy())

    def sort_out(self, rows: pa.Table) -> Sorted:
        """Return what is left of `rows` ([n] decisions, those of a partition in the order of the log); remember it."""
        keys, partitions = _keys(rows), rows["partition"].to_numpy()
        hashes = _hashes(keys)
        here = {int(p): np.flatnonzero(partitions == p) for p in np.unique(partitions)}
        hits = np.concatenate([places[self._seen[p].hits(hashes[places])] for p, places in here.items()] or [[]])
        found, keep = Sorted(rows), np.ones(len(keys), dtype=np.bool_)
        if len(hits):
            suspects = {keys[i] for i in hits.tolist()}
            taken, answers = self._stored(list(here), suspects), _answers(rows)
            for row, key in enumerate(keys):
                if key not in suspects or taken.setdefault(key, (row, answers[row]))[0] == row:
                    continue
                keep[row] = False
                first = taken[key][1]
                if answers[row] == first:
                    found.duplicates[key[0], int(partitions[row])] += 1
                else:
                    found.conflicts[key[0], int(partitions[row])] += 1
                    found.dead.append(_conflict(rows.slice(row, 1).to_pylist()[0], first))
            found.rows = rows.filter(pa.array(keep))
        offsets, arrived_ms = _places(rows)
        for p, places in here.items():
            kept, seen = places[keep[places]], self._seen[p]
            seen.advance(offsets[kept], arrived_ms[kept])
            seen.add(hashes[kept], offsets[kept])
            if seen.first is not None:
                found.first[p] = seen.first
        return found

    def _stored(self, partitions: list[int], keys: set[_Key]) -> dict[_Key, tuple[int, _Answer]]:
        """Return the answers that the lake holds to `keys`, each with -1, which is no row of a batch."""
        there = pc.field("partition").isin(partitions) & pc.field("event_id").isin([key[1] for key in keys])
        # as it is now: files of the version that is the fence may be compacted and gone
        table = self._lake.table(DECISIONS).to_pyarrow_dataset()
        stored = table.to_table(["loop", "event_id", "slot", *_ANSWER], filter=there)
        return {key: (-1, answer) for key, answer in zip(_keys(stored), _answers(stored), strict=True) if key in keys}


def _conflict(row: dict[str, Any], first: _Answer) -> DeadLetter:
    """Return the dead letter of a decision's row whose event was answered by `first` before."""
    index, propensity, version, _ = first
    reason = f"{CONFLICT}: the event was answered by action {index}, propensity {propensity!r}, of version {version!r}"
    fields = {"loop": row["loop"], **{each.name: row[each.name] for each in DECISION_FIELDS}}
    fields |= {name: msgspec.Raw(row[name].encode()) for name in RAW_FIELDS}
    record = Decision(**fields)
    ts_ms = int(row["appended_at"].timestamp() * 1000)
    message = Message(DECISIONS, row["partition"], row["offset"], record.event_id.encode(), encode(record), (), ts_ms)
    return DeadLetter(message, CONFLICT, reason)


def _keys(rows: pa.Table | pa.RecordBatch) -> list[_Key]:
    loops, events, slots = (rows[name].to_pylist() for name in ("loop", "event_id", "slot"))
    return list(zip(loops, events, slots, strict=True))


def _answers(rows: pa.Table) -> list[_Answer]:
    return list(zip(*(rows[name].to_pylist() for name in _ANSWER), strict=True))


def _hashes(keys: list[_Key]) -> Ints:
    return np.fromiter(map(hash, keys), np.int64, len(keys))


def _places(rows: pa.Table) -> tuple[Ints, Ints]:
    """Return ([n], [n]) offsets, and times of arrival in milliseconds."""
    return rows["offset"].to_numpy(), rows["appended_at"].cast(pa.int64()).to_numpy() // 1000
