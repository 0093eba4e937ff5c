"""Logs of other systems as the history of a loop: its decisions before it was ours.

They go into the lake as decisions that are settled, with the rewards they came with, so every later step takes them
for the loop's own. They stand in a log partition of their own, far above those of any log, and no draw of theirs is
repeated from a seed of ours. Their interactions are committed before the decisions: what is stopped between the two
leaves interactions without a decision, which the counters know, and the next import completes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.formats.rows import check_features, check_rows
from pipelines.interactions.join import place_of
from pipelines.interactions.window import HISTORY, join_mark
from pipelines.lake.features import with_features
from pipelines.lake.lake import Lake
from pipelines.lake.schemas import DECISIONS, INTERACTIONS
from pipelines.lake.tables import mark_of
from pipelines.logs import step
from pipelines.progress import Progress, silent
from pipelines.settings import LoopSettings

ROWS_PER_COMMIT = 50_000


class Taken(NamedTuple):
    """How many rows were taken in, and how many left out whose events the loop has."""

    rows: int
    repeated: int


@step("taken in")
def take_in(
    lake: Lake,
    loop: LoopSettings,
    batches: Iterable[pa.Table],
    *,
    rows_per_commit: int = ROWS_PER_COMMIT,
    progress: Progress = silent,
) -> Taken:
    """Make rows part of the history of `loop`; events that it has already are left out and counted.

    What is committed stays where a later row is refused; the same import can be run again.

    Args:
        lake: the tables.
        loop: the loop.
        batches: tables as `pipelines.formats.rows.complete` returns them.
        rows_per_commit: rows that are committed together.
        progress: told of the rows taken in.

    Raises:
        FieldError: a row does not fit.
        ConflictError: somebody else imported into the same loop meanwhile; run it again.
    """
    mark = f"history/{loop.name}"
    _complete(lake, loop.name, mark)
    rows = repeated = read = 0
    for table in _gathered(batches, rows_per_commit):
        check_rows(table, first_row=read)
        check_features(table, first_row=read)
        read += len(table)
        fresh = _fresh(lake, loop.name, table)
        repeated += len(table) - len(fresh)
        if not len(fresh):
            continue
        seen = lake.table("interactions")
        first = mark_of(seen, mark) or 0
        fresh = with_features(_placed(fresh, loop.name, first))
        after = first + len(fresh)
        files = lake.write("interactions", fresh.select(INTERACTIONS.names).cast(INTERACTIONS))
        lake.commit("interactions", seen, files, {mark: after, join_mark(loop.name, HISTORY): after})
        _decided(lake, fresh, mark, after)
        rows += len(fresh)
        progress("decisions taken in", rows)
    return Taken(rows, repeated)


def _complete(lake: Lake, loop: str, mark: str) -> None:
    """Write the decisions that an import which was stopped did not come to."""
    table, decisions = lake.table("interactions"), lake.table("decisions")
    after, there = mark_of(table, mark) or 0, mark_of(decisions, mark) or 0
    if there < after:
        missing = place_of(loop, HISTORY) & (pc.field("offset") >= there)
        rows = lake.read(
            "interactions", lambda table: table.to_pyarrow_dataset(schema=INTERACTIONS).to_table(filter=missing)
        )
        _decided(lake, rows, mark, after)


def _decided(lake: Lake, rows: pa.Table, mark: str, after: int) -> None:
    files = lake.write("decisions", rows.select(DECISIONS.names).cast(DECISIONS)) if len(rows) else []
    lake.commit("decisions", lake.table("decisions"), files, {mark: after})


def _gathered(batches: Iterable[pa.Table], rows: int) -> Iterator[pa.Table]:
    held = list[pa.Table]()
    for batch in batches:
        held.append(batch)
        if sum(map(len, held)) >= rows:
            yield pa.concat_tables(held)
            held = []
    if sum(map(len, held)):
        yield pa.concat_tables(held)


def _fresh(lake: Lake, loop: str, table: pa.Table) -> pa.Table:
    """Return the rows of events that the loop does not have."""
    ids = table["event_id"].combine_chunks()
    named = (pc.field("loop") == loop) & pc.field("event_id").isin(ids.unique())
    there = lake.read(
        "decisions", lambda decisions: decisions.to_pyarrow_dataset().to_table(["event_id"], filter=named)
    )
    if not len(there):
        return table
    return table.filter(pc.invert(pc.is_in(ids, value_set=there["event_id"].combine_chunks())))  # pyright: ignore


def _placed(table: pa.Table, loop: str, first: int) -> pa.Table:
    n = len(table)
    for column, values in (
        ("loop", pa.array([loop], pa.string()).take(pa.array(np.zeros(n, np.int64)))),
        ("partition", pa.array(np.full(n, HISTORY, np.int32))),
        ("offset", pa.array(np.arange(first, first + n, dtype=np.int64))),
        ("appended_at", pc.coalesce(table["appended_at"], table["ts"])),  # pyright: ignore
        ("matured_at", pc.coalesce(table["matured_at"], table["ts"])),  # pyright: ignore
    ):
        table = table.set_column(table.schema.get_field_index(column), INTERACTIONS.field(column), values)
    return table
