"""Where a replay's rows come from: a loop's table in the lake, an import, or a table at hand; read piece by piece.

A source is cut into units that can be read apart, on this machine or another one. What is computed of them adds up to
the same bits however they are cut, so nothing here keeps an order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.compute
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from decision.errors import FieldError
from decision.features import VERSION
from pipelines.lake.lake import Lake
from pipelines.lake.schemas import FEATURE_FIELDS
from pipelines.storage import Storage

pc: Any = pyarrow.compute  # its functions are made when it is imported; type checkers do not see them

ROWS_AT_ONCE = 65_536
FLAT = tuple(field.name for field in FEATURE_FIELDS)
"""Features of the contexts as columns; logs that were written before there were such have none."""
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
    *FLAT,
)
_SETTLED = ("joined", "expired")
_REPEATED = (
    *("slot", "policy_version", "state", "reward_version", "feature_snapshot", "actions"),
    *("action_ids.list.element", "context_names.list.element"),
)
"""Columns of few different texts, which are read as their dictionaries and codes."""


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

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that decide."""
        timed = self.since is not None or self.until is not None
        return ("state", *(("ts",) if timed else ()), *(("reward_version",) if self.versions is not None else ()))

    def expression(self) -> Any:
        """Return the filter of a scan, by which files and row groups are passed over; None for all times."""
        keep = None
        if self.since is not None:
            keep = pc.field("ts") >= pa.scalar(self.since, pa.timestamp("us", "UTC"))
        if self.until is not None:
            before = pc.field("ts") < pa.scalar(self.until, pa.timestamp("us", "UTC"))
            keep = before if keep is None else keep & before
        return keep

    def kept(self, table: pa.Table) -> pa.Table:
        """Return the scanned rows that are looked at; `table` itself where they are all."""
        keep = pc.is_in(table["state"], pa.array(_SETTLED))
        if self.versions is not None:
            keep = pc.and_(keep, pc.is_in(table["reward_version"], pa.array(self.versions)))
        return table if pc.all(keep, min_count=0).as_py() else table.filter(keep)


@dataclass(frozen=True, slots=True)
class LakeSource:
    """A loop's settled interactions as of one version of the table; a unit is a file.

    Attributes:
        root: of the lake.
        loop: name of the loop.
        version: of the table.
        cut: which rows.
    """

    root: str
    loop: str
    version: int
    cut: Cut = field(default_factory=Cut)

    def units(self) -> list[int]:
        """Return the units of the source."""
        return list(range(len(self._fragments())))

    def batches(self, unit: int, columns: tuple[str, ...] = COLUMNS) -> Iterator[pa.Table]:
        """Yield the rows of a unit, some at a time."""
        yield from _scanned(self._fragments()[unit], self.cut, columns)

    def whole(self, unit: int) -> bool:
        """Return whether the file says of every row of a unit that it has its whole logging distribution."""
        return _has_all(self._fragments()[unit], "pmf")

    def flat(self, unit: int) -> bool:
        """Return whether the file says of every row of a unit that its features stand in columns."""
        return _is_flat(self._fragments()[unit])

    def _fragments(self) -> list[Any]:
        return _fragments(self.root, self.loop, self.version)


@lru_cache(maxsize=4)
def _fragments(root: str, loop: str, version: int) -> list[Any]:
    # A version of a table never changes: its list of files is read once, not once for every one of them.
    options = ds.ParquetReadOptions(dictionary_columns=_REPEATED)
    data = Lake(root).table("interactions", version).to_pyarrow_dataset(parquet_read_options=options)
    return sorted(data.get_fragments(filter=pc.field("loop") == loop), key=lambda part: part.path)


@dataclass(frozen=True, slots=True)
class FileSource:
    """A Parquet file of interaction rows; a unit is one of its row groups.

    Attributes:
        path: of the file.
        cut: which rows.
        root: folder or address that the path is below; "" for a path of this machine.
    """

    path: str
    cut: Cut = field(default_factory=Cut)
    root: str = ""

    def units(self) -> list[int]:
        """Return the units of the source."""
        with pq.ParquetFile(self.path, filesystem=self._filesystem()) as file:
            return list(range(file.num_row_groups))

    def batches(self, unit: int, columns: tuple[str, ...] = COLUMNS) -> Iterator[pa.Table]:
        """Yield the rows of a unit, some at a time."""
        yield from _scanned(self._fragment(unit), self.cut, columns)

    def whole(self, unit: int) -> bool:
        """Return whether the file says of every row of a unit that it has its whole logging distribution."""
        return _has_all(self._fragment(unit), "pmf")

    def flat(self, unit: int) -> bool:
        """Return whether the file says of every row of a unit that its features stand in columns."""
        return _is_flat(self._fragment(unit))

    def _filesystem(self) -> Any:
        return Storage(self.root).filesystem() if self.root else None

    def _fragment(self, unit: int) -> Any:
        form = ds.ParquetFileFormat(dictionary_columns=_REPEATED)
        data = ds.dataset(self.path, format=form, filesystem=self._filesystem())
        file: Any = next(iter(data.get_fragments()))
        return file.subset(row_group_ids=[unit])


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

    def __reduce__(self) -> tuple[type[TableSource], tuple[pa.Table, Cut, int]]:
        return TableSource, (self.table.combine_chunks(), self.cut, self.rows)  # or slices would bring all they are of

    def units(self) -> list[int]:
        """Return the units of the source."""
        return list(range(0, len(self.table), self.rows))

    def batches(self, unit: int, columns: tuple[str, ...] = COLUMNS) -> Iterator[pa.Table]:
        """Yield the rows of a unit, some at a time."""
        rows = self.table.slice(unit, self.rows).select(_with(columns, self.cut, self.table.column_names))
        span = self.cut.expression()
        rows = self.cut.kept(rows if span is None else rows.filter(span))
        for start in range(0, len(rows), ROWS_AT_ONCE):
            yield rows.slice(start, ROWS_AT_ONCE)

    def whole(self, unit: int) -> bool:
        """Return whether every row of a unit has its whole logging distribution."""
        return not self.table["pmf"].slice(unit, self.rows).null_count

    def flat(self, unit: int) -> bool:
        """Return whether the features of every row of a unit stand in columns."""
        if FLAT[0] not in self.table.column_names:
            return False
        return bool(pc.all(pc.equal(self.table[FLAT[0]].slice(unit, self.rows), VERSION), skip_nulls=False).as_py())


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
    return LakeSource(lake.path, loop, table.version(), cut or Cut())


def import_source(root: str, key: str, cut: Cut | None = None) -> FileSource:
    """Return the source of an import's file below a folder or an address."""
    return FileSource(key, cut or Cut(), root)


def _scanned(fragment: Any, cut: Cut, columns: tuple[str, ...]) -> Iterator[pa.Table]:
    scanned = fragment.to_batches(
        columns=_with(columns, cut, fragment.physical_schema.names),
        filter=cut.expression(),
        batch_size=ROWS_AT_ONCE,
        batch_readahead=1,
        fragment_readahead=0,
        use_threads=False,
    )
    for batch in scanned:
        rows = cut.kept(pa.Table.from_batches([batch]))
        if len(rows):
            yield rows


def _with(columns: tuple[str, ...], cut: Cut, known: list[str]) -> list[str]:
    return [name for name in dict.fromkeys((*columns, *cut.columns)) if name not in FLAT or name in known]


def _has_all(fragment: Any, column: str) -> bool:
    """Return whether a file's statistics count no null in `column`; False where they say nothing."""
    return all(found is not None and found.null_count == 0 for found in _statistics(fragment, column))


def _is_flat(fragment: Any) -> bool:
    """Return whether a file's statistics say that this version of flattening wrote the features of all rows."""
    return all(
        found is not None and found.null_count == 0 and found.has_min_max and found.min == found.max == VERSION
        for found in _statistics(fragment, FLAT[0])
    )


def _statistics(fragment: Any, column: str) -> Iterator[Any]:
    """Yield the statistics of `column` in every row group; None where there are none."""
    for group in fragment.row_groups:
        part = fragment.metadata.row_group(group.id)
        found = [part.column(number) for number in range(part.num_columns)]
        yield from [one.statistics for one in found if one.path_in_schema.split(".")[0] == column] or [None]
