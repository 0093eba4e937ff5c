"""The join over the lake: settles mature decisions, partition by partition, in transactions that keep the position.

Decisions below a partition's position are all settled; above it, those that already have an interaction row are. So a
decision that was settled is not looked at again, and one that stays open holds up nothing. `decision.join` says what
settling means, `settled_rows.py` makes the rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from datetime import datetime
from typing import NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from deltalake import DeltaTable
from deltalake.transaction import AddAction

from decision.batch import Ints
from decision.join import RewardRule
from pipelines.engines.engine import Engine, LocalEngine, each_of
from pipelines.ingestion.conflicts import conflicts_of
from pipelines.interactions.settle import settled_rows
from pipelines.interactions.window import HISTORY, instant_us, join_mark, rule_of, turn_mark
from pipelines.lake.lake import REWRITES, ConflictError, Lake
from pipelines.lake.schemas import Table
from pipelines.lake.tables import mark_of, partitions_of
from pipelines.logs import step
from pipelines.progress import Progress, silent
from pipelines.settings import LoopSettings

ROWS_PER_COMMIT = 20_000
_ATTEMPTS = 50


class Joined(msgspec.Struct, frozen=True, kw_only=True):
    """What one run settled.

    Attributes:
        joined: decisions with an outcome.
        expired: decisions without one.
        dropped: decisions left out, by reason.
        clipped: rewards that were outside of the range that the loop's settings give.
        pending: decisions that are still open.
        table_version: version of the interactions after it.
    """

    joined: int = 0
    expired: int = 0
    dropped: dict[str, int] = {}
    clipped: int = 0
    pending: int = 0
    table_version: int = 0


@step("joined")
def join(
    lake: Lake,
    loop: LoopSettings,
    now: datetime,
    *,
    partitions: Collection[int] | None = None,
    rows_per_commit: int = ROWS_PER_COMMIT,
    progress: Progress = silent,
) -> Joined:
    """Settle the decisions of `loop` whose reward window is over at `now`.

    Only outcomes that are in the lake can be counted: take `now` before ingesting, not after.

    Args:
        lake: the tables.
        loop: its reward definition, as it is now, holds for the decisions that are settled now.
        now: the time, with its UTC offset.
        partitions: which of the log's to look at; None for all.
        rows_per_commit: decisions that are settled together; bounds the memory.
        progress: told of the decisions settled, after each commit.

    Raises:
        FieldError: `now` has no UTC offset.
        ConflictError: other joins of the same loop kept committing.
    """
    now_us, rule, tally = instant_us(now), rule_of(loop), Counter[str]()
    seen = _look(lake)
    for partition in partitions_of(seen.decisions, loop.name):
        if partitions is not None and partition not in partitions:
            continue
        attempts, done = 0, False
        while not done:
            settled = tally["settled"]
            try:
                for rows in _settling(lake, seen, loop, partition, rule, now_us, rows_per_commit, tally):
                    tally += _count(rows)
                    progress("decisions settled", tally["settled"])
                done = True
            except (ConflictError, FileNotFoundError):
                attempts = 1 if tally["settled"] > settled else attempts + 1
                if attempts == _ATTEMPTS:
                    raise
                seen = _look(lake)  # another join was faster, or an erasure took files away
    return _joined(tally, seen.interactions.version())


def restate(
    lake: Lake,
    loop: LoopSettings,
    now: datetime,
    *,
    late: bool = False,
    rows_per_commit: int = ROWS_PER_COMMIT,
    engine: Engine | None = None,
    progress: Progress = silent,
) -> Joined:
    """Settle all that the loop's log brought again, under its present reward definition, in one transaction.

    What was imported into its history came with its rewards and stays as it is.

    The rows before it stay reachable by the table's version, until they are vacuumed.

    Args:
        lake: the tables.
        loop: the loop with the new definition.
        now: the time, with its UTC offset.
        late: count every outcome in the lake, also those after the window and those that arrived after the decision
            had been settled. Without it a decision keeps to the outcomes that were known when it was settled.
        rows_per_commit: decisions that are settled together; bounds the memory.
        engine: who settles the log's partitions; None for this process, one after the other.
        progress: told of the decisions settled.

    Raises:
        FieldError: `now` has no UTC offset.
        ConflictError: joins or restatements of the same loop kept committing.
    """
    now_us, rule = instant_us(now), rule_of(loop, late=late)
    for attempt in range(_ATTEMPTS):
        try:
            return _restated(lake, loop, rule, now_us, rows_per_commit, engine or LocalEngine(1), progress)
        except (ConflictError, FileNotFoundError):
            if attempt == _ATTEMPTS - 1:
                raise
    raise AssertionError("unreachable")


class _Restating(NamedTuple):
    """A restatement as it is sent to whoever does a partition of it; tables are as at the versions."""

    lake: str
    loop: LoopSettings
    rule: RewardRule
    now_us: int
    rows_per_commit: int
    versions: dict[Table, int]


class _Resettled(NamedTuple):
    """What came of a partition."""

    tally: Counter[str]
    files: list[AddAction]
    position: int


def _restated(
    lake: Lake,
    loop: LoopSettings,
    rule: RewardRule,
    now_us: int,
    rows_per_commit: int,
    engine: Engine,
    progress: Progress,
) -> Joined:
    seen = _look(lake)
    interactions, decisions, outcomes, dead = seen
    versions: dict[Table, int] = {
        "interactions": interactions.version(),
        "decisions": decisions.version(),
        "outcomes": outcomes.version(),
        "dead_letters": dead.version(),
    }
    logged = [partition for partition in partitions_of(decisions, loop.name) if partition < HISTORY]
    job = _Restating(lake.path, loop, rule, now_us, rows_per_commit, versions)
    parts = each_of(
        engine, _resettled, job, logged, lambda done: progress("partitions settled again", done, len(logged))
    )
    if not parts:
        return _joined(Counter(), interactions.version())
    marks = {join_mark(loop.name, p): part.position for p, part in zip(logged, parts, strict=True)}
    files = [file for part in parts for file in part.files]
    replaced = {*logged, *(each for each in partitions_of(interactions, loop.name) if each < HISTORY)}
    version = lake.commit("interactions", interactions, files, marks, replace=(loop.name, sorted(replaced)))
    return _joined(sum((part.tally for part in parts), Counter()), version)


def _resettled(job: _Restating, partition: int) -> _Resettled:
    """Settle a partition again and write its files; they are nobody's until they are committed."""
    lake, tally, files = Lake(job.lake), Counter[str](), list[AddAction]()
    interactions, decisions, outcomes, dead = (lake.table(name, version) for name, version in job.versions.items())
    place = place_of(job.loop.name, partition)
    offsets, ts = _offsets_and_times(decisions, place)
    mature = ts + job.rule.window_us <= job.now_us
    until = mark_of(outcomes, f"outcomes/{partition}") or 0
    conflicts = conflicts_of(dead, decisions, job.loop.name, partition, -1)
    for chunk in _chunks(offsets[mature], job.rows_per_commit):
        known = np.full(len(chunk), until) if job.rule.late else _known_before(interactions, place, chunk, until)
        version = job.loop.reward.version
        rows = settled_rows(decisions, outcomes, place, chunk, known, conflicts, job.rule, version, job.now_us)
        tally += _count(rows)
        files += lake.write("interactions", rows)
    tally["pending"] += int(np.count_nonzero(~mature))
    return _Resettled(tally, files, _position_after(offsets, offsets[~mature]))


def place_of(loop: str, partition: int) -> ds.Expression:
    """Return the condition for the rows of a loop in a log partition."""
    return (pc.field("loop") == loop) & (pc.field("partition") == partition)


def open_decisions(interactions: DeltaTable, decisions: DeltaTable, loop: str, partition: int) -> tuple[Ints, Ints]:
    """Return ([n], [n]) the offsets and times of the decisions that are not settled.

    Args:
        interactions: read first, so that it holds no decision that `decisions` lacks.
        decisions: the decisions.
        loop: the loop's name.
        partition: log partition.
    """
    position = mark_of(interactions, join_mark(loop, partition)) or 0
    beyond = place_of(loop, partition) & (pc.field("offset") >= position)
    offsets, ts = _offsets_and_times(decisions, beyond)
    settled = interactions.to_pyarrow_dataset().to_table(["offset"], filter=beyond)["offset"].to_numpy()
    is_open = ~np.isin(offsets, settled)
    return offsets[is_open], ts[is_open]


class _Seen(NamedTuple):
    """The tables as a join last saw them."""

    interactions: DeltaTable
    decisions: DeltaTable
    outcomes: DeltaTable
    dead_letters: DeltaTable

    def standing(self, loop: str, partition: int) -> tuple[int | None, ...]:
        """Return what changes with every commit that settles, or removes, decisions of a partition."""
        interactions, decisions, *_ = self
        names = (join_mark(loop, partition), turn_mark(loop, partition), REWRITES)
        return (*(mark_of(interactions, name) for name in names), mark_of(decisions, REWRITES))


def _look(lake: Lake) -> _Seen:
    # The interactions before the decisions: their marks are the fence. Dead letters are there before a position moves.
    return _Seen(*(lake.table(name) for name in ("interactions", "decisions", "outcomes", "dead_letters")))


def _settling(
    lake: Lake,
    seen: _Seen,
    loop: LoopSettings,
    partition: int,
    rule: RewardRule,
    now_us: int,
    rows_per_commit: int,
    tally: Counter[str],
) -> Iterator[pa.Table]:
    """Settle what is mature in a partition, up to `rows_per_commit` decisions at once; yield the rows committed.

    What is open is read once. Tables that are brought up to date after a commit may hold another join's commit too,
    so the fence is that what `_Seen.standing` names is as this join left it, and not a table's version alone.

    Raises:
        ConflictError: somebody else settled or removed decisions of the partition meanwhile.
    """
    offsets, ts = open_decisions(seen.interactions, seen.decisions, loop.name, partition)
    ripe = ts + rule.window_us <= now_us
    mature, unripe = offsets[ripe], offsets[~ripe]
    beyond = int(offsets[-1]) + 1 if len(offsets) else 0
    held = int(unripe[0]) if len(unripe) else beyond
    place, known = place_of(loop.name, partition), seen.standing(loop.name, partition)
    first = int(mature[0]) if len(mature) else beyond
    conflicts = conflicts_of(seen.dead_letters, seen.decisions, loop.name, partition, first)
    for start in range(0, len(mature), rows_per_commit):
        chunk, rest = mature[start : start + rows_per_commit], mature[start + rows_per_commit :]
        until = np.full(len(chunk), mark_of(seen.outcomes, f"outcomes/{partition}") or 0)
        rows = settled_rows(
            seen.decisions, seen.outcomes, place, chunk, until, conflicts, rule, loop.reward.version, now_us
        )
        position, turn = min(held, int(rest[0]) if len(rest) else beyond), (known[1] or 0) + 1
        marks = {join_mark(loop.name, partition): position, turn_mark(loop.name, partition): turn}
        lake.commit("interactions", seen.interactions, lake.write("interactions", rows), marks)
        yield rows
        if len(rest):
            for table in (seen.decisions, seen.outcomes):
                table.update_incremental()
            known = (position, turn, *known[2:])
            if seen.standing(loop.name, partition) != known:
                raise ConflictError("another join was faster, or decisions were removed")
    tally["pending"] += len(unripe)


def _position_after(seen: Ints, still_open: Ints) -> int:
    if len(still_open):
        return int(still_open.min())
    return int(seen.max()) + 1 if len(seen) else 0


def _offsets_and_times(decisions: DeltaTable, where: ds.Expression) -> tuple[Ints, Ints]:
    rows = decisions.to_pyarrow_dataset().to_table(["offset", "ts"], filter=where)
    offsets = rows["offset"].to_numpy()
    order = np.argsort(offsets, kind="stable")
    return offsets[order], rows["ts"].cast(pa.int64()).to_numpy()[order]


def _known_before(interactions: DeltaTable, place: ds.Expression, chunk: Ints, until: int) -> Ints:
    """Return [n] up to which outcome each decision was settled before; `until` for those that were not."""
    here = place & (pc.field("offset") >= int(chunk[0])) & (pc.field("offset") <= int(chunk[-1]))
    rows = interactions.to_pyarrow_dataset().to_table(["offset", "outcomes_until"], filter=here)
    known = np.full(len(chunk), until)
    at = np.searchsorted(chunk, rows["offset"].to_numpy())
    inside = at < len(chunk)
    same = np.zeros(len(at), dtype=np.bool_)
    same[inside] = chunk[at[inside]] == rows["offset"].to_numpy()[inside]
    known[at[same]] = rows["outcomes_until"].to_numpy()[same]
    return known


def _chunks(offsets: Ints, size: int) -> Iterator[Ints]:
    for start in range(0, len(offsets), size):
        yield offsets[start : start + size]


def _count(rows: pa.Table) -> Counter[str]:
    states = zip(rows["state"].to_pylist(), rows["reason"].to_pylist(), strict=True)
    tally = Counter(state if reason is None else f"{state}/{reason}" for state, reason in states)
    tally["settled"] = len(rows)
    tally["clipped"] = int(np.count_nonzero(rows["clipped"].to_numpy()))
    return tally


def _joined(tally: Counter[str], version: int) -> Joined:
    dropped = {key.removeprefix("dropped/"): count for key, count in tally.items() if key.startswith("dropped/")}
    return Joined(
        joined=tally["joined"],
        expired=tally["expired"],
        dropped=dict(sorted(dropped.items())),
        clipped=tally["clipped"],
        pending=tally["pending"],
        table_version=version,
    )
