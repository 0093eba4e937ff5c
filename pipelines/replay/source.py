"""Where a replay's rows come from: a loop's table in the lake, an import, or a table at hand; read piece by piece.

A source is cut into units that can be read apart, on this machine or another one. What is computed of them adds up to
the same bits however they are cut, so nothing here keeps an order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from decision.errors import FieldError
from pipelines.lake.lake import Lake

pc: Any = pyarrow.compute  # its functions are made when it is imported; type checkers do not see them

ROWS_AT_ONCE = 65_536
COLUMNS = (
    "event_id",
    "slot",
    "ts",
    "context",
    "feature_snapshot",
    "actions",
    "action_ids",
    "action_index",
    "propensity",
    "pmf",
    "seed",
    "pass_probability",
    "policy_version",
    "state",
    "reward",
    "reward_version",
)
_SETTLED = ("joined", "expired")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """Which rows of a log are looked at.

    Attributes:
        since: earliest time of decision; None for the first.
        until: first time of decision that is left out; None for none.
        versions: reward definitions that count; None for all.
    """

    since: datetime | None = None
    until: datetime | None = None
    versions: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("since", "until"):
            value = getattr(self, name)
            if value is not None and value.tzinfo is None:
                raise FieldError(name, wanted="a time with its UTC offset", got=value.isoformat())
        if self.since is not None and self.until is not None and not self.since < self.until:
            raise FieldError("until", wanted=f"a time after {self.since.isoformat()}", got=self.until.isoformat())

    def expression(self) -> Any:
        """Return the filter of a scan."""
        keep = pc.field("state").isin(list(_SETTLED))
        if self.since is not None:
            keep &= pc.field("ts") >= pa.scalar(self.since, pa.timestamp("us", "UTC"))
        if self.until is not None:
            keep &= pc.field("ts") < pa.scalar(self.until, pa.timestamp("us", "UTC"))
        if self.versions is not None:
            keep &= pc.field("reward_version").isin(list(self.versions))
        return keep


@dataclass(frozen=True, slots=True)
class LakeSource:
    """A loop's settled interactions as of one version of the table; a unit is a file.

    Attributes:
        root: of the lake.
        storage_options: what Delta needs to reach it.
        loop: name of the loop.
        version: of the table.
        cut: which rows.
    """

    root: str
    storage_options: dict[str, str]
    loop: str
    version: int
    cut: Cut = field(default_factory=Cut)

    def units(self) -> list[int]:
        """Return the units of the source."""
        return list(range(len(self._fragments())))

    def batches(self, unit: int, columns: tuple[str, ...] = COLUMNS) -> Iterator[pa.Table]:
        """Yield the rows of a unit, some at a time."""
        fragment = self._fragments()[unit]
        yield from _scanned(fragment, self.cut, columns)

    def _fragments(self) -> list[Any]:
        return _fragments(self.root, tuple(sorted(self.storage_options.items())), self.loop, self.version)


@lru_cache(maxsize=4)
def _fragments(root: str, storage_options: tuple[tuple[str, str], ...], loop: str, version: int) -> list[Any]:
    # A version of a table never changes: its list of files is read once, not once for every one of them.
    lake = Lake(root, storage_options=dict(storage_options))
    data = lake.table("interactions", version).to_pyarrow_dataset()
    return sorted(data.get_fragments(filter=pc.field("loop") == loop), key=lambda part: part.path)


@dataclass(frozen=True, slots=True)
class FileSource:
    """A Parquet file of interaction rows; a unit is a few of its row groups.

    Attributes:
        path: of the file.
        cut: which rows.
    """

    path: str
    cut: Cut = field(default_factory=Cut)

    def units(self) -> list[int]:
        """Return the units of the source."""
        with pq.ParquetFile(self.path) as file:
            return list(range(file.num_row_groups))

    def batches(self, unit: int, columns: tuple[str, ...] = COLUMNS) -> Iterator[pa.Table]:
        """Yield the rows of a unit, some at a time."""
        import pyarrow.dataset as ds

        whole = next(iter(ds.dataset(self.path, format="parquet").get_fragments()))
        yield from _scanned(whole.subset(row_group_ids=[unit]), self.cut, columns)  # pyright: ignore[reportAttributeAccessIssue]


@dataclass(frozen=True, slots=True, eq=False)
class TableSource:
    """A table at hand; a unit is a slice of it.

    Attributes:
        table: interaction rows.
        cut: which rows.
        rows: of a unit.
    """

    table: pa.Table
    cut: Cut = field(default_factory=Cut)
    rows: int = 4 * ROWS_AT_ONCE

    def units(self) -> list[int]:
        """Return the units of the source."""
        return list(range(0, len(self.table), self.rows))

    def batches(self, unit: int, columns: tuple[str, ...] = COLUMNS) -> Iterator[pa.Table]:
        """Yield the rows of a unit, some at a time."""
        rows = self.table.slice(unit, self.rows).select(list(columns)).filter(self.cut.expression())
        for start in range(0, len(rows), ROWS_AT_ONCE):
            yield rows.slice(start, ROWS_AT_ONCE)


Source = LakeSource | FileSource | TableSource


def source_of(lake: Lake, loop: str, *, version: int | None = None, cut: Cut | None = None) -> LakeSource:
    """Return the source of a loop's interactions.

    Args:
        lake: the tables.
        loop: name of the loop.
        version: of the table; None for the present one.
        cut: which rows.

    Raises:
        FieldError: that version is not kept.
    """
    table = lake.table("interactions", version)
    return LakeSource(lake.path, lake.storage_options, loop, table.version(), cut or Cut())


def import_source(path: Path, cut: Cut | None = None) -> FileSource:
    """Return the source of an import's file."""
    return FileSource(str(path), cut or Cut())


def _scanned(fragment: Any, cut: Cut, columns: tuple[str, ...]) -> Iterator[pa.Table]:
    scanned = fragment.to_batches(
        columns=list(columns),
        filter=cut.expression(),
        batch_size=ROWS_AT_ONCE,
        batch_readahead=1,
        fragment_readahead=0,
        use_threads=False,
    )
    for batch in scanned:
        if batch.num_rows:
            yield pa.Table.from_batches([batch])
