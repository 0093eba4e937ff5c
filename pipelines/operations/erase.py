"""Erasure of a subject from the lake, and from the log where the log can do it, with a proof that says how much it was.

Interactions go first and again at the end: a join that was under way meets a changed position, fails to commit, and
looks again at decisions that are no longer there. The rows are gone from the latest versions at once; `vacuum` removes
the files of the earlier ones too, and with them the table versions that a registered model names as its data.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from deltalake import DeltaTable

from decision.errors import FieldError
from decision.records import MAX_RECORD_BYTES
from pipelines.interactions.window import instant_us, join_mark
from pipelines.lake.lake import ConflictError, Lake
from pipelines.lake.schemas import Table
from pipelines.lake.tables import mark_of
from pipelines.logs import step
from pipelines.progress import Progress, parted, silent

_ATTEMPTS = 100
_TABLES: tuple[Table, ...] = ("decisions", "outcomes", "interactions", "dead_letters")


class Erased(msgspec.Struct, frozen=True, kw_only=True):
    """Proof of an erasure. It names the subject by hash only.

    Attributes:
        subject_sha256: SHA-256 of the subject's id.
        events: decisions' event ids that were the subject's.
        rows: rows removed, by table.
        messages: messages emptied on the log; None when the log was not asked.
        elsewhere: where messages of the subject stay for a while, and until when; unset where none do.
        versions_before: version of each table before.
        versions_after: and after.
        files_removed: files of earlier versions removed from storage; None when the tables were not vacuumed.
        remaining: rows of the subject found afterwards; 0.
        erased_at: when; None when the time was not passed in.
        digest: SHA-256 of the other fields as JSON, in the order given.
    """

    subject_sha256: str
    events: int
    rows: dict[str, int]
    messages: int | None
    versions_before: dict[str, int]
    versions_after: dict[str, int]
    files_removed: int | None
    remaining: int
    erased_at: datetime | None
    elsewhere: dict[str, str] | msgspec.UnsetType = msgspec.UNSET
    digest: str = ""


@step("erased")
def erase(
    lake: Lake,
    subject_id: str,
    *,
    forget: Callable[[str, Iterable[bytes]], int] | None = None,
    elsewhere: Mapping[str, str] | None = None,
    vacuum: bool = True,
    now: datetime | None = None,
    progress: Progress = silent,
) -> Erased:
    """Remove every row of `subject_id`: its decisions, their outcomes and interactions, and its dead letters.

    Ingest before, or the subject's decisions that are still on the log come back; with `forget` they come back empty.
    What cannot be found by the subject or its events, for example an outcome whose decision was never ingested, stays.

    Args:
        lake: the tables.
        subject_id: whom to erase.
        forget: empties the messages with the given keys of a topic of the log and returns how many; `LocalLog.redact`.
        elsewhere: where messages stay for a while, and until when; for the proof.
        vacuum: remove the files of earlier versions as well. Others may go on writing meanwhile; what a writer left
            that was killed goes with the first erasure an hour later.
        now: the time, for the proof.
        progress: told of the parts of the erasure that are done.

    Raises:
        FieldError: `subject_id` is empty or too long.
        ConflictError: others kept committing; run it again.
    """
    if not 1 <= len(subject_id) <= MAX_RECORD_BYTES:
        raise FieldError("subject_id", wanted=f"1 to {MAX_RECORD_BYTES} characters", got=subject_id)
    if now is not None:
        instant_us(now)
    part_done = parted(progress, "parts of the erasure done", 5)
    before = {name: lake.version(name) for name in _TABLES}
    events = _events_of(lake, subject_id)
    rows = dict.fromkeys(_TABLES, 0)
    theirs = pc.field("subject_id") == subject_id
    rows["interactions"] += _delete_interactions(lake, subject_id)
    rows["decisions"] += lake.delete("decisions", theirs)
    rows["interactions"] += _delete_interactions(lake, subject_id)
    part_done()
    for loop in sorted({loop for loop, _ in events}):
        ids = [event for name, event in events if name == loop]
        rows["outcomes"] += lake.delete("outcomes", (pc.field("loop") == loop) & pc.field("event_id").isin(ids))
    part_done()
    dead, dead_keys = _delete_dead_letters(lake, subject_id, {event for _, event in events})
    rows["dead_letters"] += dead
    part_done()
    keys = sorted({event.encode() for _, event in events} | dead_keys)
    messages = None if forget is None else sum(forget(topic, keys) for topic in ("decisions", "outcomes"))
    part_done()
    files = sum(lake.forget(name) for name in _TABLES) if vacuum else None
    part_done()
    proof = Erased(
        subject_sha256=hashlib.sha256(subject_id.encode()).hexdigest(),
        events=len(events),
        rows={name: rows[name] for name in _TABLES},
        messages=messages,
        versions_before={name: before[name] for name in _TABLES},
        versions_after={name: lake.version(name) for name in _TABLES},
        files_removed=files,
        remaining=len(_events_of(lake, subject_id)),
        erased_at=now,
        elsewhere=dict(elsewhere) if elsewhere else msgspec.UNSET,
    )
    return msgspec.structs.replace(proof, digest=digest_of(proof))


def digest_of(proof: Erased) -> str:
    """Return the digest that an untouched proof carries."""
    return hashlib.sha256(msgspec.json.encode(msgspec.structs.replace(proof, digest=""))).hexdigest()


def _events_of(lake: Lake, subject_id: str) -> list[tuple[str, str]]:
    """Return (loop, event_id) of every decision of the subject, in either table."""
    found: set[tuple[str, str]] = set()
    for name in ("decisions", "interactions"):
        ours = _rows(lake, name, ["loop", "event_id"], pc.field("subject_id") == subject_id)
        found.update(zip(ours["loop"].to_pylist(), ours["event_id"].to_pylist(), strict=True))
    return sorted(found)


def _delete_interactions(lake: Lake, subject_id: str) -> int:
    for attempt in range(_ATTEMPTS):
        table = lake.table("interactions")
        theirs = pc.field("subject_id") == subject_id
        try:
            rows = table.to_pyarrow_dataset().to_table(["loop", "partition", "offset"], filter=theirs)
        except FileNotFoundError:  # another erasure took earlier versions away
            if attempt == _ATTEMPTS - 1:
                raise
            continue
        marks: dict[str, int] = {}
        for values in table.partitions():
            mark = join_mark(values["loop"], int(values["partition"]))
            marks[mark] = mark_of(table, mark) or 0
        # Until their decisions are gone too, the erased rows are open decisions: the counters stay balanced.
        for loop, partition, offset in zip(*(rows[name].to_pylist() for name in rows.column_names), strict=True):
            mark = join_mark(loop, partition)
            marks[mark] = min(marks[mark], offset)
        try:
            # also with nothing to remove: a join under way must look again
            return lake.delete("interactions", theirs, marks, seen=table)
        except ConflictError:
            if attempt == _ATTEMPTS - 1:
                raise
    raise AssertionError("unreachable")


def _delete_dead_letters(lake: Lake, subject_id: str, events: set[str]) -> tuple[int, set[bytes]]:
    # Unreadable messages may name the subject anywhere: what contains its id as a JSON text goes.
    written = {
        msgspec.json.encode(subject_id),
        json.dumps(subject_id).encode(),
        subject_id.encode().join((b'"', b'"')),
    }
    offsets: dict[tuple[str, int], set[int]] = {}
    keys: set[bytes] = set()

    def reading(table: DeltaTable) -> None:
        for batch in table.to_pyarrow_dataset().to_batches(batch_size=256):
            for row in batch.to_pylist():
                if row["key"].decode(errors="replace") in events or any(text in row["value"] for text in written):
                    offsets.setdefault((row["topic"], row["partition"]), set()).add(row["offset"])
                    keys.add(row["key"])

    lake.read("dead_letters", reading)
    removed = 0
    for (topic, partition), places in offsets.items():
        here = (pc.field("topic") == topic) & (pc.field("partition") == partition)
        removed += lake.delete("dead_letters", here & pc.field("offset").isin(sorted(places)))
    # a key may be another subject's event: its messages stay on the log
    named = pc.field("event_id").isin(pa.array([key.decode(errors="replace") for key in keys], pa.string()))
    others = _rows(lake, "decisions", ["event_id"], named)
    return removed, keys - {event.encode() for event in others["event_id"].to_pylist()}


def _rows(lake: Lake, name: Table, columns: list[str], where: ds.Expression) -> pa.Table:
    return lake.read(name, lambda table: table.to_pyarrow_dataset().to_table(columns, filter=where))
