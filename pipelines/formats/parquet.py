"""Interactions as Parquet: the lake's own columns, as this system or any other writes them.

What pandas adds of its own, the index, is left alone. Features may be text, as in the lake, or structs and maps, as
pandas and Spark write dictionaries. Times may be numbers; see `pipelines.formats.times`.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from decision.errors import FieldError
from pipelines.files import replacing
from pipelines.formats.registry import Format, Found
from pipelines.formats.rows import complete
from pipelines.formats.store import check_file
from pipelines.formats.times import Clock, Unit
from pipelines.lake.schemas import INTERACTIONS, TIME
from pipelines.progress import Progress, silent

pc: Any = pyarrow.compute  # its functions are made when it is imported; type checkers do not see them

_JSON = ("context", "actions", "feature_snapshot")
_INDEX = "__index_level_"


def read_parquet(path: Path, *, time_unit: Unit | None = None, rows_per_batch: int = 20_000) -> Iterable[pa.Table]:
    """Yield the rows of a Parquet file in the interaction columns; see `complete` for those that may be missing.

    Args:
        path: of the file.
        time_unit: of times that are numbers; without it, the file's first number has to be certain.
        rows_per_batch: rows held at a time.

    Raises:
        FieldError: it is no Parquet file, a column is missing or unknown, or a type does not fit.
    """
    check_file(path)
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError, UnicodeDecodeError) as error:
        raise FieldError("path", wanted="a Parquet file", got=path.name) from error
    with file:
        names = _named(file.schema_arrow)
        clocks = {name: Clock(time_unit) for name in names}
        first = 0
        try:
            for batch in file.iter_batches(batch_size=rows_per_batch, columns=names):
                batch.validate(full=True)
                rows = np.arange(first, first + len(batch))
                columns = {name: _column(name, batch[name], clocks[name], rows) for name in batch.schema.names}
                yield complete(columns | {"offset": pa.array(rows)}, len(batch))
                first += len(batch)
        except (pa.ArrowInvalid, OSError) as error:
            raise FieldError(f"row {first} or after", wanted="whole rows of Parquet", got=error) from error


def _named(schema: pa.Schema) -> list[str]:
    """Return the columns to read: all but the index of pandas, unless that is a column of ours."""
    names = list(schema.names)
    for name in names:
        if names.count(name) > 1:
            raise FieldError(name, wanted="one column of that name", got=names.count(name))
    index = _index_of(schema)
    known = [name for name in names if name in INTERACTIONS.names]
    for name in names:
        if name not in known and name not in index and not name.startswith(_INDEX):
            raise FieldError.unknown(name, INTERACTIONS.names, noun="column")
    return known


def _index_of(schema: pa.Schema) -> set[str]:
    """Return the columns that pandas says are its index; what it says is no more than that, so it may be damaged."""
    try:
        told: Any = schema.pandas_metadata
        return {name for name in told["index_columns"] if isinstance(name, str)}
    except (ValueError, TypeError, KeyError):
        return set()


def _column(name: str, values: pa.Array, clock: Clock, rows: Any) -> pa.Array:
    try:
        return _read(name, values, clock, rows)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise FieldError(name, wanted=f"a column of {INTERACTIONS.field(name).type}", got=error) from error


def _read(name: str, values: pa.Array, clock: Clock, rows: Any) -> pa.Array:
    field = INTERACTIONS.field(name)
    if field.type == TIME:
        return clock.read(values, rows, field=name)
    if name in _JSON and pa.types.is_nested(values.type):
        return _texts(name, values, rows)
    if name == "outcomes" and not _has_times(values.type):
        raise FieldError(name, wanted="a list of outcomes whose ts are timestamps, or no such column", got=values.type)
    if pa.types.is_string(field.type) and pa.types.is_floating(values.type):
        return _ids(values)
    return values


def _texts(name: str, values: pa.Array, rows: Any) -> pa.Array:
    """Return the JSON of structs, maps, and lists of them; what is null in them is not there."""
    wanted = list if name == "actions" else dict
    out: list[str | None] = []
    for row, value in zip(rows, values.to_pylist(maps_as_pydicts="strict"), strict=True):
        inside = value if wanted is list and isinstance(value, list) else [value]
        if value is not None and not (isinstance(value, wanted) and all(isinstance(each, dict) for each in inside)):
            kind = "a list of structs or maps" if wanted is list else "a struct or map"
            raise FieldError(f"row {row}: {name}", wanted=f"{kind} of features, or their JSON", got=value)
        out.append(None if value is None else msgspec.json.encode(_plain(value)).decode())
    return pa.array(out, pa.string())


def _plain(value: Any) -> Any:
    """Return `value` as JSON has it. A struct has every name that some row has, so null says that there is none."""
    if isinstance(value, dict):
        return {name: _plain(entry) for name, entry in value.items() if entry is not None}
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return None if isinstance(value, float) and math.isnan(value) else value


def _has_times(kind: pa.DataType) -> bool:
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)) or not pa.types.is_struct(kind.value_type):
        return False
    at = kind.value_type.get_field_index("ts")
    return at < 0 or pa.types.is_temporal(kind.value_type.field(at).type)


def _ids(values: pa.Array) -> pa.Array:
    """Return numbers as text: pandas makes 7.0 of the id 7 where another row has none."""
    whole = pc.equal(pc.floor(values), values)
    if pc.all(pc.fill_null(whole, True)).as_py():
        return values.cast(pa.int64()).cast(pa.string())
    return values.cast(pa.string())


def write_parquet(table: pa.Table, path: Path, progress: Progress = silent) -> tuple[int, int]:
    """Write interaction rows to a Parquet file, whole or not at all; return their number, and that nothing is left."""
    progress("decisions exported", 0, len(table))
    with replacing(path) as file:
        pq.write_table(table, file, compression="zstd")
    return len(table), 0


def find(path: Path | None, name: str, *, time_unit: Unit | None = None) -> list[Found]:
    """Return the log in the Parquet file `path`."""
    if path is None:
        raise FieldError("path", wanted="the file to read", got=None)
    return [Found(name, path.name, read_parquet(path, time_unit=time_unit))]


FORMAT = Format(find, write_parquet)
