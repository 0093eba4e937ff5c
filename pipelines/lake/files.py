"""The Parquet files of a Delta table: writing them, and planning which ones to replace.

Files are always written by this code. The engine behind `deltalake` would write string columns with a type that
pyarrow's filters cannot compare with text, so deleting and compacting replace files here too.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.transaction import AddAction, RemoveAction

from pipelines.lake.statistics import APART, STATISTICS, actions_of, name_of, one_value
from pipelines.storage import Storage

TARGET_BYTES = 32 << 20
"""Size of compacted files: large enough to read fast, small enough to rewrite in memory."""

AT_ONCE = 16
"""Files that are asked of object storage at the same time."""

_ROWS_TOGETHER = 16_384
"""Rows of a file that are read or skipped together: who wants a few of a merged file does not read them all."""

_REPEATED = ("context_names.list.element", "action_ids.list.element")
"""Columns of few texts. A dictionary costs time elsewhere: of event ids and raw JSON zstd finds what repeats."""

_QUICK, _THOROUGH = -3, 3
"""Levels of compression: quick for what arrives, thorough when files are merged."""


class Replacement(NamedTuple):
    """Files that are to go, and the rows that take their place.

    Attributes:
        rows: what stays, by offset; may be empty.
        removed: the files.
        dropped: rows of the files that do not stay.
    """

    rows: pa.Table
    removed: list[RemoveAction]
    dropped: int


class FileWriter:
    """Writes the files of one table.

    Args:
        storage: the tables' folder or address.
        name: of the table in it.
        partitioned_by: its partition columns.
    """

    def __init__(self, storage: Storage, name: str, partitioned_by: list[str]) -> None:
        self._storage, self._name, self._by = storage, name, partitioned_by

    def write(self, rows: pa.Table, *, data_change: bool = True) -> list[AddAction]:
        """Write `rows` to files of one partition, and one value of `APART`, each, and return what to commit.

        They are on disk when this returns.
        """
        files = [(values, file) for values, part in _split(rows, self._by) for file in _apart(part)]
        if self._storage.local or len(files) < 2:
            return [self._write(values, file, data_change) for values, file in files]
        with ThreadPoolExecutor(min(len(files), AT_ONCE)) as pool:  # on object storage each is a wait
            return list(pool.map(lambda file: self._write(file[0], file[1], data_change), files))

    def _write(self, values: dict[str, str | None], rows: pa.Table, data_change: bool) -> AddAction:
        folder = "/".join(f"{column}={value}" for column, value in values.items())
        path = f"{folder}/{uuid.uuid4()}{_said(rows)}.parquet"
        buffer = pa.BufferOutputStream()
        pq.write_table(
            rows,
            buffer,
            row_group_size=_ROWS_TOGETHER,
            compression="zstd",
            write_page_checksum=True,  # a flipped bit is seen, and not learned from
            compression_level=_QUICK if data_change else _THOROUGH,
            use_dictionary=list(_REPEATED),  # pyright: ignore[reportArgumentType]
            write_statistics=[column for column in STATISTICS if column in rows.column_names],  # pyright: ignore[reportArgumentType]
        )
        data = buffer.getvalue().to_pybytes()
        self._storage.write_new(f"{self._name}/{path}", data)
        return AddAction(path, len(data), values, _now_ms(), data_change, json.dumps(_stats(rows)))


def merged(table: DeltaTable, *, target_bytes: int = TARGET_BYTES) -> Iterator[Replacement]:
    """Yield what replaces the small files of `table`; no row goes."""
    for files in _alike(table).values():
        if files[0].apart is None:  # of older code, with all states in one
            for file in files:
                yield _replacement(table, [file], None, data_change=False)
            continue
        bin_, size = list[_File](), 0
        for file in sorted((f for f in files if f.size < target_bytes), key=lambda f: f.first_offset):
            if size + file.size > target_bytes and bin_:
                if len(bin_) > 1:
                    yield _replacement(table, bin_, None, data_change=False)
                bin_, size = [], 0
            bin_.append(file)
            size += file.size
        if len(bin_) > 1:
            yield _replacement(table, bin_, None, data_change=False)


def without(table: DeltaTable, where: ds.Expression) -> Iterator[Replacement]:
    """Yield what replaces the files of `table` that hold rows for which `where` is true."""
    concerned = {fragment.path for fragment in table.to_pyarrow_dataset().get_fragments(filter=where)}
    for files in _alike(table).values():
        for file in files:
            if file.path in concerned:
                replacement = _replacement(table, [file], where, data_change=True)
                if replacement.dropped:
                    yield replacement


class _File(NamedTuple):
    path: str
    size: int
    values: dict[str, str | None]
    first_offset: int
    apart: tuple[str, ...] | None


def _alike(table: DeltaTable) -> dict[str, list[_File]]:
    """Return the files of each partition and value of `APART`."""
    files: dict[str, list[_File]] = {}
    by = table.metadata().partition_columns
    stateful = APART[0] in pa.schema(table.schema()).names
    for row in actions_of(table):
        values = {name: None if row[f"partition.{name}"] is None else str(row[f"partition.{name}"]) for name in by}
        apart = one_value(row["path"]) if stateful else ()
        file = _File(row["path"], row["size_bytes"], values, row.get("min.offset") or 0, apart)
        files.setdefault(str((values, apart)), []).append(file)
    return files


def _replacement(
    table: DeltaTable, files: list[_File], where: ds.Expression | None, *, data_change: bool
) -> Replacement:
    every = table.to_pyarrow_dataset()
    wanted = {file.path for file in files}
    chosen = [fragment for fragment in every.get_fragments() if fragment.path in wanted]
    rows = ds.FileSystemDataset(chosen, every.schema, chosen[0].format, chosen[0].filesystem).to_table()
    rows = rows.sort_by("offset")
    before = len(rows)
    if where is not None:
        # by offset, which is unique in a partition: a condition on null is neither true nor false
        gone = rows.filter(where)["offset"].to_numpy()
        rows = rows.filter(pa.array(~np.isin(rows["offset"].to_numpy(), gone)))
    now = _now_ms()
    removed = [RemoveAction(file.path, data_change, now, file.size, file.values) for file in files]
    return Replacement(rows, removed, before - len(rows))


def _split(rows: pa.Table, by: list[str]) -> list[tuple[dict[str, str | None], pa.Table]]:
    keys = rows.select(by).group_by(by).aggregate([]).to_pylist()
    if len(keys) == 1:
        return [({name: str(keys[0][name]) for name in by}, rows.drop_columns(by))]
    parts: list[tuple[dict[str, str | None], pa.Table]] = []
    for key in sorted(keys, key=str):
        chosen = (pc.field(by[0]) == key[by[0]]) & (pc.field(by[1]) == key[by[1]])
        parts.append(({name: str(key[name]) for name in by}, rows.filter(chosen).drop_columns(by)))
    return parts


def _said(rows: pa.Table) -> str:
    if APART[0] not in rows.column_names:
        return ""
    return name_of([rows[column][0].as_py() for column in APART])


def _apart(rows: pa.Table) -> list[pa.Table]:
    if APART[0] not in rows.column_names:
        return [rows]
    values = [pc.call_function("coalesce", [rows[column], pa.scalar("")]) for column in APART]
    keys = pc.call_function("binary_join_element_wise", [*values, pa.scalar("/")])
    kinds = sorted(keys.unique().to_pylist())
    return [rows.filter(pc.call_function("equal", [keys, pa.scalar(kind)])) for kind in kinds]


def _stats(rows: pa.Table) -> dict[str, Any]:
    smallest: dict[str, Any] = {}
    largest: dict[str, Any] = {}
    for column in STATISTICS:
        if column in rows.column_names:
            ends = pc.call_function("min_max", [rows[column]]).as_py()
            smallest[column], largest[column] = _stat(ends["min"]), _stat(ends["max"])
    return {
        "numRecords": len(rows),
        "minValues": smallest,
        "maxValues": largest,
        "nullCount": dict.fromkeys(smallest, 0),
    }


def _stat(value: int | str | datetime) -> int | str:
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ") if isinstance(value, datetime) else value


def _now_ms() -> int:
    return int(time.time() * 1000)
