"""Interactions as Parquet: the lake's own columns, as this system or any other writes them.

What pandas adds of its own, the index, is left alone. Features may be text, as in the lake, or structs and maps, as
pandas and Spark write dictionaries. Times may be numbers; see `pipelines.formats.times`. Columns of other names are
read by a map; see `pipelines.formats.mapped`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from decision.errors import FieldError, Words, nearest_of
from pipelines.files import replacing
from pipelines.formats.columns import CONTEXT
from pipelines.formats.mapped import ACTION, Place, features_of, ids_in, index_of, places_of, plain
from pipelines.formats.registry import Format, Found
from pipelines.formats.rows import complete
from pipelines.formats.store import check_file
from pipelines.formats.times import Clock, Unit
from pipelines.lake.schemas import INTERACTIONS, TIME
from pipelines.progress import Progress, silent

pc: Any = pyarrow.compute  # its functions are made when it is imported; type checkers do not see them

_JSON = ("context", "actions", "feature_snapshot")
_INDEX = "__index_level_"


def read_parquet(
    path: Path,
    columns: Mapping[str, str] | None = None,
    *,
    name: str = "",
    time_unit: Unit | None = None,
    rows_per_batch: int = 20_000,
) -> Iterable[pa.Table]:
    """Yield the rows of a Parquet file in the interaction columns; see `complete` for those that may be missing.

    Args:
        path: of the file.
        columns: {field: column}, see `places_of`; without it, all columns of the file are ours.
        name: prefix of event ids where `columns` is given and no column has them.
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
        names = _named(file.schema_arrow, mapped=bool(columns))
        places = places_of(file.schema_arrow, columns) if columns else {name: Place(name) for name in names}
        clocks = {field: Clock(time_unit) for field in places}
        first = 0
        try:
            read = sorted({place.column for place in places.values()})
            for batch in file.iter_batches(batch_size=rows_per_batch, columns=read):
                batch.validate(full=True)
                rows = np.arange(first, first + len(batch))
                found = _columns({field: place.of(batch) for field, place in places.items()}, clocks, rows)
                if columns and "event_id" not in found:
                    found["event_id"] = pa.array([f"{name}-{row}" for row in rows])
                yield complete(found | {"offset": pa.array(rows)}, len(batch))
                first += len(batch)
        except (pa.ArrowInvalid, OSError) as error:
            raise FieldError(f"row {first} or after", wanted="whole rows of Parquet", got=error) from error


def _named(schema: pa.Schema, *, mapped: bool) -> list[str]:
    """Return the columns to read: all but the index of pandas, unless that is a column of ours.

    With `mapped`, others may stand beside them.
    """
    names = list(schema.names)
    for name in names:
        if names.count(name) > 1:
            raise FieldError(name, wanted="one column of that name", got=names.count(name))
    index = _index_of(schema)
    known = [name for name in names if name in INTERACTIONS.names]
    for name in names:
        if not mapped and name not in known and name not in index and not name.startswith(_INDEX):
            near = nearest_of(name, INTERACTIONS.names)
            meant = f"; did you mean {near!r}?" if near else ";"
            says = f"unknown column{meant} columns of other names are read with --map, as in --map reward={name}"
            raise FieldError(name, wanted="a column of `decision export`", got=Words("unknown"), says=says)
    return known


def _index_of(schema: pa.Schema) -> set[str]:
    """Return the columns that pandas says are its index; what it says is no more than that, so it may be damaged."""
    try:
        told: Any = schema.pandas_metadata
        return {name for name in told["index_columns"] if isinstance(name, str)}
    except (ValueError, TypeError, KeyError):
        return set()


def _columns(values: Mapping[str, pa.Array], clocks: Mapping[str, Clock], rows: Any) -> dict[str, Any]:
    """Return our columns of the fields' values, some of which make one together."""
    parts = {field: each for field, each in values.items() if field.startswith(CONTEXT)}
    found = {
        field: _column(field, each, clocks[field], rows)
        for field, each in values.items()
        if field not in parts and field != ACTION
    }
    if parts:
        found["context"] = features_of({field.removeprefix(CONTEXT): each for field, each in parts.items()})
    if ACTION in values:
        drawn = values[ACTION]
        drawn = _ids(drawn) if pa.types.is_floating(drawn.type) else drawn
        found["action_index"] = index_of(drawn.to_pylist(), found["action_ids"].to_pylist(), rows)
    return found


def _column(name: str, values: pa.Array, clock: Clock, rows: Any) -> pa.Array:
    try:
        return _read(name, values, clock, rows)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise FieldError(name, wanted=f"a column of {INTERACTIONS.field(name).type}", got=error) from error


def _read(name: str, values: pa.Array, clock: Clock, rows: Any) -> pa.Array:
    field = INTERACTIONS.field(name)
    if field.type == TIME:
        return clock.read(values, rows, field=name)
    if name == "action_ids":
        return ids_in(values)
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
        out.append(None if value is None else msgspec.json.encode(plain(value)).decode())
    return pa.array(out, pa.string())


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


def find(
    path: Path | None, name: str, columns: Mapping[str, str] | None = None, *, time_unit: Unit | None = None
) -> list[Found]:
    """Return the log in the Parquet file `path`; see `read_parquet`."""
    if path is None:
        raise FieldError("path", wanted="the file to read", got=None)
    return [Found(name, path.name, read_parquet(path, columns, name=name, time_unit=time_unit))]


FORMAT = Format(find, write_parquet)
