"""From the event log to the lake, each message once, wherever the process stops.

A batch becomes visible in one Delta transaction together with the offset that follows it, so rows and position cannot
disagree. Dead letters are written just before, under their own position. Several ingesters may overlap: the position
is a fence, one commit wins and the other reads on from where the winner came. Repeated decisions are counted and left
out; one that gives another answer to the same event is a conflict, and a dead letter that the join looks at. Repeated
outcomes are kept, and recognised by the join.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from decision.errors import FieldError
from pipelines.ingestion.behind import mark_of_log
from pipelines.ingestion.conflicts import conflict_mark
from pipelines.ingestion.parse import DeadLetter, Parsed, parse_decisions, parse_outcomes
from pipelines.ingestion.repeats import Repeats, seen_mark
from pipelines.lake.features import with_features
from pipelines.lake.lake import ConflictError, Lake
from pipelines.lake.schemas import DEAD_LETTERS, LOGGED
from pipelines.lake.schemas import OUTCOMES as OUTCOME_ROWS
from pipelines.lake.tables import mark_of
from pipelines.log.protocol import DECISIONS, OUTCOMES, EventLog, OffsetOutOfRange, Stretch
from pipelines.log.slates import LOOK_BACK, MAX_SLOTS, completed
from pipelines.logs import step
from pipelines.progress import Progress, silent

ROWS_PER_COMMIT = 20_000
HORIZON_S = 86_400.0
_BYTES_PER_COMMIT = 64 << 20
_MESSAGES_PER_READ = 1_000
_ATTEMPTS = 50

Topic = Literal["decisions", "outcomes"]
_PARSE: dict[Topic, Callable[[Stretch, Collection[str] | None], Parsed]] = {
    "decisions": parse_decisions,
    "outcomes": parse_outcomes,
}


class IngestError(Exception):
    """The log and the lake do not fit together."""


class Ingested(msgspec.Struct, frozen=True, kw_only=True):
    """What one run added to the lake.

    Attributes:
        decisions: rows of decisions.
        outcomes: rows of outcomes.
        dead_letters: messages that fit no schema.
        duplicates: repeated decisions, left out.
        conflicts: decisions that answer an event in another way than an earlier one, left out.
        redacted: messages that an erasure had emptied on the log, left out.
    """

    decisions: int = 0
    outcomes: int = 0
    dead_letters: int = 0
    duplicates: int = 0
    conflicts: int = 0
    redacted: int = 0

    def __add__(self, other: Ingested) -> Ingested:
        return Ingested(**{name: getattr(self, name) + getattr(other, name) for name in self.__struct_fields__})

    @property
    def messages(self) -> int:
        """All messages that were taken from the log."""
        left_out = self.dead_letters + self.duplicates + self.conflicts + self.redacted
        return self.decisions + self.outcomes + left_out


def ingest(
    log: EventLog,
    lake: Lake,
    *,
    max_messages: int | None = None,
    loops: Collection[str] | None = None,
    partitions: Collection[int] | None = None,
    progress: Progress = silent,
) -> Ingested:
    """Bring what the log holds at the time of the call into the lake.

    To follow a log, keep an `Ingester` instead: it remembers the events of the last day, which this has to read.

    Args:
        log: the event log.
        lake: the tables.
        max_messages: stop after this many; None for all.
        loops: the loops that exist; a record of another is a dead letter. None accepts every name.
        partitions: which of the log's to read; None for all.
        progress: told of the messages of each topic after each commit.

    Raises:
        IngestError: the lake was filled from another log, or messages are gone that were never ingested.
        LogError: the log does not answer.
    """
    return Ingester(log, lake, loops=loops, partitions=partitions).run(max_messages=max_messages, progress=progress)


class Ingester:
    """Ingestion that is run again and again.

    Args:
        log: the event log.
        lake: the tables.
        loops: the loops that exist; None accepts every name.
        partitions: which of the log's to read; None for all.
        horizon_s: how long after a decision a repetition is recognised, in seconds of the log's progress.
        rows_per_commit: messages that are committed together; bounds the memory.
    """

    def __init__(
        self,
        log: EventLog,
        lake: Lake,
        *,
        loops: Collection[str] | None = None,
        partitions: Collection[int] | None = None,
        horizon_s: float = HORIZON_S,
        rows_per_commit: int = ROWS_PER_COMMIT,
    ) -> None:
        count = log.partitions(DECISIONS)
        if log.partitions(OUTCOMES) != count:
            raise IngestError(f"topics: must have equal partitions, have {count} and {log.partitions(OUTCOMES)}")
        chosen = sorted(range(count) if partitions is None else set(partitions))
        if chosen and not 0 <= chosen[0] <= chosen[-1] < count:
            raise FieldError("partitions", wanted=f"numbers in 0..{count - 1}", got=chosen)
        self._topics = [
            _TopicIngest(log, lake, topic, chosen, loops, int(horizon_s * 1000), rows_per_commit) for topic in _PARSE
        ]

    @step("ingested", worth=lambda result: result.messages > 0)
    def run(self, *, max_messages: int | None = None, progress: Progress = silent) -> Ingested:
        """Ingest what the log holds now; arguments and errors as `ingest`."""
        if max_messages is not None and max_messages < 0:
            raise FieldError("max_messages", wanted="0 or more", got=max_messages)
        total = Ingested()
        with _rare_collections():
            for topic in self._topics:
                total += topic.run(None if max_messages is None else max_messages - total.messages, progress)
        return total


@dataclass
class _Batch:
    """Messages on their way into one commit."""

    next: dict[int, int] = field(default_factory=dict)  # partition -> offset that follows
    rows: list[pa.RecordBatch] = field(default_factory=list)
    dead: list[DeadLetter] = field(default_factory=list)
    duplicates: Counter[tuple[str, int]] = field(default_factory=Counter)  # by loop and partition
    conflicts: Counter[tuple[str, int]] = field(default_factory=Counter)  # likewise; each is among `dead`
    marks: dict[str, int] = field(default_factory=dict)  # to be set beside the positions
    redacted: int = 0
    messages: int = 0
    bytes: int = 0


class _TopicIngest:
    """Ingestion of one topic."""

    def __init__(
        self,
        log: EventLog,
        lake: Lake,
        topic: Topic,
        partitions: list[int],
        loops: Collection[str] | None,
        horizon_ms: int,
        rows_per_commit: int,
    ) -> None:
        self._log, self._lake = log, lake
        self._topic: Topic = topic
        self._partitions, self._loops = partitions, loops
        self._horizon_ms, self._rows_per_commit = horizon_ms, rows_per_commit
        self._log_mark = mark_of_log(log)
        self._loaded = False

    def run(self, max_messages: int | None, progress: Progress) -> Ingested:
        ends = {p: self._log.watermarks(self._topic, p)[1] for p in self._partitions}
        total, attempts, there = Ingested(), 0, 0
        with ThreadPoolExecutor(1, thread_name_prefix="ingest") as writer:
            pending: Future[Ingested] | None = None
            under_way = 0
            while True:
                try:
                    if not self._loaded:
                        self._load()
                    if not there:
                        there = sum(max(0, ends[p] - self._next[p]) for p in self._partitions)
                    left = None if max_messages is None else max_messages - total.messages - under_way
                    batch = self._read(ends, left)  # while the one before is being committed
                    if pending is not None:
                        done, pending, under_way = pending, None, 0
                        total += done.result()
                        attempts = 0
                        progress(f"{self._topic} ingested", total.messages, there)
                    if batch is None:
                        return total
                    if self._topic == DECISIONS:
                        self._drop_repeats(batch)
                    pending, under_way = writer.submit(self._commit, batch), batch.messages
                except (ConflictError, FileNotFoundError):
                    # another ingester was faster, or an erasure took files away: see how far the table came
                    self._loaded = False
                    attempts += 1
                    if attempts == _ATTEMPTS:
                        raise
                except BaseException:
                    self._loaded = False  # what was read ahead is not in the lake
                    raise

    def _load(self) -> None:
        """Read from the lake where to go on, and what was seen."""
        self._table = self._lake.table(self._topic)
        self._dead_table = self._lake.table("dead_letters")
        known = mark_of(self._table, "log")
        if known is None:  # before anything is read, so that ingesters that begin together meet here and not later
            self._lake.commit(self._topic, self._table, [], {"log": self._log_mark})
        elif known != self._log_mark:
            raise IngestError(f"log: must be the one that {self._lake!r} was filled from, is {self._log!r}")
        # A table that was brought up to date after a commit of ours may hold a later one of another ingester's too: the
        # fence is that the marks still are those we know, and not the table's version alone.
        positions = [self._position(p) for p in self._partitions]
        self._known = {mark: mark_of(self._table, mark) for mark in positions}
        self._dead_known = {mark: mark_of(self._dead_table, mark) for mark in positions}
        self._next: dict[int, int] = {}
        self._dead_before: dict[int, set[int]] = {}
        for p in self._partitions:
            at = self._known[self._position(p)]
            self._next[p] = self._log.watermarks(self._topic, p)[0] if at is None else at
            self._dead_before[p] = self._written_dead_letters(p)
        if self._topic == DECISIONS:
            self._repeats = Repeats(self._lake, self._table, self._partitions, self._horizon_ms)
        self._loaded = True

    def _position(self, partition: int) -> str:
        return f"{self._topic}/{partition}"

    def _written_dead_letters(self, partition: int) -> set[int]:
        # A stop between the two commits leaves dead letters ahead of the position. They stay dead letters, even if
        # the record has become readable meanwhile: each message is in one table.
        written = mark_of(self._dead_table, self._position(partition)) or 0
        if written <= self._next[partition]:
            return set()
        here = (pc.field("topic") == self._topic) & (pc.field("partition") == partition)
        ahead = here & (pc.field("offset") >= self._next[partition])
        return set(self._dead_table.to_pyarrow_dataset().to_table(["offset"], filter=ahead)["offset"].to_pylist())

    def _read(self, ends: Mapping[int, int], max_messages: int | None) -> _Batch | None:
        """Read and parse the next batch; None at the end."""
        size = self._rows_per_commit if max_messages is None else min(self._rows_per_commit, max_messages)
        batch = _Batch()
        for p in self._partitions:
            while self._next[p] < ends[p] and batch.messages < size and batch.bytes < _BYTES_PER_COMMIT:
                wanted = min(size - batch.messages, _MESSAGES_PER_READ, ends[p] - self._next[p])
                messages = self._messages(p, wanted)
                if not messages:
                    break
                if self._topic == DECISIONS:
                    room = _BYTES_PER_COMMIT - batch.bytes
                    messages = completed(messages, partial(self._before, p, messages.offsets[0]), max_bytes=room)
                self._next[p] = batch.next[p] = messages.offsets[-1] + 1
                batch.messages += len(messages)
                batch.bytes += sum(map(len, messages.values))
                if self._dead_before[p]:
                    kept = [message for message in messages.messages() if message.offset not in self._dead_before[p]]
                    messages = Stretch.of(kept) if kept else messages.none()
                if messages:
                    parsed = _PARSE[self._topic](messages, self._loops)
                    batch.rows.append(parsed.rows)
                    batch.dead += parsed.dead
                    batch.redacted += parsed.redacted
        return batch if batch.messages else None

    def _before(self, partition: int, offset: int) -> Iterator[Stretch]:
        """Yield what stands on the log before an offset, where a slate may have begun, the nearest first."""
        low = max(self._log.watermarks(self._topic, partition)[0], offset - LOOK_BACK)
        end = offset
        while end > low:
            start = at = max(low, end - MAX_SLOTS)
            while at < end:
                messages = self._log.read_stretch(self._topic, partition, at, max_messages=end - at)
                if not messages:
                    return
                yield messages
                at = messages.offsets[-1] + 1
            end = start

    def _messages(self, partition: int, wanted: int) -> Stretch:
        try:
            return self._log.read_stretch(self._topic, partition, self._next[partition], max_messages=wanted)
        except OffsetOutOfRange as error:
            raise IngestError(
                f"{self._position(partition)}: wanted to go on at offset {self._next[partition]},"
                f" got a log that holds [{error.low}, {error.high}): messages are gone that were never ingested"
            ) from error

    def _drop_repeats(self, batch: _Batch) -> None:
        found = self._repeats.sort_out(pa.Table.from_batches(batch.rows, LOGGED))
        batch.rows = found.rows.to_batches()
        batch.dead += found.dead
        batch.duplicates, batch.conflicts = found.duplicates, found.conflicts
        batch.marks = {seen_mark(p): first for p, first in found.first.items()}

    def _commit(self, batch: _Batch) -> Ingested:
        positions = {self._position(p): offset for p, offset in batch.next.items()}
        marks = dict(positions)
        if batch.dead:
            files = self._lake.write("dead_letters", _dead_rows(batch.dead))
            fences = {mark: max(value, self._dead_known[mark] or 0) for mark, value in marks.items()}
            _check_unmoved(self._dead_table, self._dead_known)
            counted = _raised(self._dead_table, {conflict_mark(*of): n for of, n in batch.conflicts.items()})
            self._lake.commit("dead_letters", self._dead_table, files, fences | counted)
            self._dead_known |= fences
        marks |= _raised(self._table, {f"duplicates/{loop}/{p}": n for (loop, p), n in batch.duplicates.items()})
        decided = self._topic == DECISIONS
        rows = pa.Table.from_batches(batch.rows, LOGGED if decided else OUTCOME_ROWS)
        if decided:
            rows = with_features(rows)
        files = self._lake.write(self._topic, rows) if len(rows) else []
        _check_unmoved(self._table, self._known)
        marks |= {mark: value for mark, value in batch.marks.items() if mark_of(self._table, mark) != value}
        self._lake.commit(self._topic, self._table, files, marks)
        self._known |= positions
        return Ingested(
            **{self._topic: len(rows)},
            dead_letters=len(batch.dead) - batch.conflicts.total(),
            duplicates=batch.duplicates.total(),
            conflicts=batch.conflicts.total(),
            redacted=batch.redacted,
        )


def _check_unmoved(table: DeltaTable, known: Mapping[str, int | None]) -> None:
    if any(mark_of(table, mark) != value for mark, value in known.items()):
        raise ConflictError("another ingester was faster")


def _raised(table: DeltaTable, by: Mapping[str, int]) -> dict[str, int]:
    """Return new values of marks that count."""
    return {mark: (mark_of(table, mark) or 0) + count for mark, count in by.items()}


@contextmanager
def _rare_collections() -> Iterator[None]:
    # Records make thousands of lists and no cycles: looking for cycles among them would take a fifth of the time.
    before = gc.get_threshold()
    gc.set_threshold(100_000, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _dead_rows(dead: list[DeadLetter]) -> pa.Table:
    columns = {
        "topic": [letter.message.topic for letter in dead],
        "partition": [letter.message.partition for letter in dead],
        "offset": [letter.message.offset for letter in dead],
        "appended_at": [letter.message.ts_ms * 1000 for letter in dead],
        "key": [letter.message.key for letter in dead],
        "value": [letter.message.value for letter in dead],
        "reason": [letter.reason for letter in dead],
        "field": [letter.field for letter in dead],
    }
    return pa.table([pa.array(columns[f.name], f.type) for f in DEAD_LETTERS], schema=DEAD_LETTERS)
