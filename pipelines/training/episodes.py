"""What episodes brought, from a log of any length: their sums go into scratch files, by a hash of the episode."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute
from deltalake import DeltaTable

from pipelines.lake.lake import Lake, dataset
from pipelines.trajectories.histories import AHEAD, MOST_FILES, ROWS_AT_ONCE, read_back, spread

pc: Any = pyarrow.compute  # its functions are made when it is imported; type checkers do not see them


def episode_high(lake: Lake, loop: str, version: int, *, rows_at_once: int = ROWS_AT_ONCE) -> float | None:
    """Return the largest sum of the rewards above 0 of an episode; None where no decision has one.

    Args:
        lake: the tables.
        loop: name of the loop.
        version: version of the interactions table.
        rows_at_once: about how many decisions' sums come together, 1 or more; memory is bounded by it.
    """
    keep = (pc.field("loop") == loop) & pc.field("episode_id").is_valid() & (pc.field("reward") > 0.0)

    def reading(table: DeltaTable) -> float | None:
        data = dataset("interactions", table)
        files = min(MOST_FILES, max(1, -(-data.count_rows(filter=keep) // rows_at_once)))
        batches = data.scanner(["episode_id", "reward"], filter=keep, **AHEAD).to_batches()
        with tempfile.TemporaryDirectory(prefix="decision-") as folder:
            paths = spread(_sums_of(batches), Path(folder), files)
            return max((pc.max(_summed(rows)["reward"]).as_py() for rows in read_back(paths)), default=None)

    return lake.read("interactions", reading, version)


def _sums_of(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
    for batch in batches:
        if batch.num_rows:
            yield _summed(pa.Table.from_batches([batch]).rename_columns(["who", "reward"]))


def _summed(rows: pa.Table) -> pa.Table:
    # Threads would add in another order each time, and the manifest repeats bit for bit.
    found = rows.group_by("who", use_threads=False).aggregate([("reward", "sum")])
    return found.select(["who", "reward_sum"]).rename_columns(["who", "reward"])
