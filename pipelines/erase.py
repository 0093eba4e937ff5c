"""Erasure of a subject from the lake, and from the log where the log can do it, with a proof that says how much it was.

Interactions go first and again at the end: a join that was under way meets a changed position, fails to commit, and
looks again at decisions that are no longer there. The rows are gone from the latest versions at once; `vacuum` removes
the files of the earlier ones too, and with them the table versions that a registered model names as its data.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from datetime import datetime

import msgspec
import pyarrow.compute as pc

from decision.errors import FieldError
from decision.records import MAX_RECORD_BYTES
from pipelines.join import instant_us, join_mark
from pipelines.lake import ConflictError, Lake, mark_of
from pipelines.tables import Table

_EVENTS_PER_DELETE = 2_000
_ATTEMPTS = 10
_TABLES: tuple[Table, ...] = ("decisions", "outcomes", "interactions", "dead_letters")


class Erased(msgspec.Struct, frozen=True, kw_only=True):
    """Proof of an erasure. It names the subject by hash only.

    Attributes:
        subject_sha256: SHA-256 of the subject's id.
        events: decisions' event ids that were the subject's.
        rows: rows removed, by table.
        messages: messages emptied on the log; None when the log was not asked.
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
    digest: str = ""


def erase(
    lake: Lake,
    subject_id: str,
    *,
    forget: Callable[[str, Iterable[bytes]], int] | None = None,
    vacuum: bool = True,
    now: datetime | None = None,
) -> Erased:
    """Remove every row of `subject_id`: its decisions, their outcomes and interactions, and its dead letters.

    Ingest before, or the subject's decisions that are still on the log come back; with `forget` they come back empty.
    What cannot be found by the subject or its events, for example an outcome whose decision was never ingested, stays.

    Args:
        lake: the tables.
        subject_id: whom to erase.
        forget: empties the messages with the given keys of a topic of the log and returns how many; `LocalLog.redact`.
        vacuum: remove the files of earlier versions as well. Nobody else may write to the lake meanwhile.
        now: the time, for the proof.

    Raises:
        FieldError: `subject_id` is empty or too long.
        ConflictError: others kept committing; run it again.
    """
    if not 1 <= len(subject_id) <= MAX_RECORD_BYTES:
        raise FieldError("subject_id", wanted=f"1 to {MAX_RECORD_BYTES} characters", got=subject_id)
    if now is not None:
        instant_us(now)
    before = {name: lake.version(name) for name in _TABLES}
    events = _events_of(lake, subject_id)
    rows = dict.fromkeys(_TABLES, 0)
    rows["interactions"] += _delete_interactions(lake, subject_id)
    rows["decisions"] += lake.delete("decisions", f"subject_id = {_quoted(subject_id)}")
    rows["interactions"] += _delete_interactions(lake, subject_id)
    for start in range(0, len(events), _EVENTS_PER_DELETE):
        part = events[start : start + _EVENTS_PER_DELETE]
        for loop in sorted({loop for loop, _ in part}):
            ids = ", ".join(_quoted(event) for name, event in part if name == loop)
            rows["outcomes"] += lake.delete("outcomes", f"loop = {_quoted(loop)} AND event_id IN ({ids})")
    rows["dead_letters"] += _delete_dead_letters(lake, subject_id, {event for _, event in events})
    keys = sorted({event.encode() for _, event in events})
    messages = None if forget is None else sum(forget(topic, keys) for topic in ("decisions", "outcomes"))
    files = sum(lake.vacuum(name, retention_hours=0) for name in _TABLES) if vacuum else None
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
    )
    return msgspec.structs.replace(proof, digest=digest_of(proof))


def digest_of(proof: Erased) -> str:
    """Return the digest that an untouched proof carries."""
    return hashlib.sha256(msgspec.json.encode(msgspec.structs.replace(proof, digest=""))).hexdigest()


def _events_of(lake: Lake, subject_id: str) -> list[tuple[str, str]]:
    """Return (loop, event_id) of every decision of the subject, in either table."""
    found: set[tuple[str, str]] = set()
    for name in ("decisions", "interactions"):
        rows = lake.table(name).to_pyarrow_dataset()
        ours = rows.to_table(["loop", "event_id"], filter=pc.field("subject_id") == subject_id)
        found.update(zip(ours["loop"].to_pylist(), ours["event_id"].to_pylist(), strict=True))
    return sorted(found)


def _delete_interactions(lake: Lake, subject_id: str) -> int:
    for attempt in range(_ATTEMPTS):
        table = lake.table("interactions")
        rows = table.to_pyarrow_dataset().to_table(
            ["loop", "partition", "offset"], filter=pc.field("subject_id") == subject_id
        )
        marks: dict[str, int] = {}
        for values in table.partitions():
            mark = join_mark(values["loop"], int(values["partition"]))
            marks[mark] = mark_of(table, mark) or 0
        # Until their decisions are gone too, the erased rows are open decisions: the counters stay balanced.
        for loop, partition, offset in zip(*(rows[name].to_pylist() for name in rows.column_names), strict=True):
            mark = join_mark(loop, partition)
            marks[mark] = min(marks[mark], offset)
        try:
            if len(rows):
                return lake.delete("interactions", f"subject_id = {_quoted(subject_id)}", marks, seen=table)
            lake.commit("interactions", table, [], marks)  # nothing to remove, but a join under way must look again
            return 0
        except ConflictError:
            if attempt == _ATTEMPTS - 1:
                raise
    raise AssertionError("unreachable")


def _delete_dead_letters(lake: Lake, subject_id: str, events: set[str]) -> int:
    # Unreadable messages may name the subject anywhere: what contains its id as a JSON text goes.
    written = {msgspec.json.encode(subject_id), subject_id.encode().join((b'"', b'"'))}
    theirs: dict[tuple[str, int], list[int]] = {}
    for batch in lake.table("dead_letters").to_pyarrow_dataset().to_batches(batch_size=256):
        for row in batch.to_pylist():
            if row["key"].decode(errors="replace") in events or any(text in row["value"] for text in written):
                theirs.setdefault((row["topic"], row["partition"]), []).append(row["offset"])
    return sum(
        lake.delete(
            "dead_letters",
            f'topic = {_quoted(topic)} AND partition = {partition} AND "offset" IN ({", ".join(map(str, offsets))})',
        )
        for (topic, partition), offsets in theirs.items()
    )


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
