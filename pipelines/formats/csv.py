"""Session logs as CSV, whatever their columns are called: a map says which column is what.

A row is a decision. Rows without a propensity are left out and counted: what drew them is not known, so no estimate can
be made of them. Of a randomised trial it is known without a column: every action offered was as probable.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.csv as pv

from decision.errors import FieldError
from pipelines.formats.registry import Format, Found
from pipelines.formats.rows import complete
from pipelines.formats.store import check_file
from pipelines.lake.schemas import TIME

pc: Any = pyarrow.compute  # its functions are made when it is imported; type checkers do not see them

NEEDED = ("ts", "action", "actions", "propensity", "reward")
FIELDS = (*NEEDED, "event", "subject", "episode", "step", "version")
CONTEXT = "context."
BETWEEN = "|"
"""What stands between the ids in the column of offered actions."""
_TYPES = {
    **dict.fromkeys(("action", "actions", "event", "subject", "episode", "version"), pa.string()),
    **dict.fromkeys(("propensity", "reward"), pa.float64()),
    "step": pa.int64(),
}
_BLOCK_BYTES = 4 << 20
_NULLS = ["", "NA", "NaN", "nan", "null", "NULL", "None"]
_UNITS = ((1e14, 1), (1e11, 1_000), (0.0, 1_000_000))
"""Times as numbers from here on are microseconds, milliseconds, seconds: any of them means a time after 1973."""


def find(
    path: Path | None, name: str, columns: Mapping[str, str] | None = None, *, uniform: bool = False
) -> list[Found]:
    """Return the log in the CSV file `path`.

    Args:
        path: of the file, with a line of names.
        name: of the import, and prefix of event ids where no column has them.
        columns: {field: column}; a field that is not given is the column of its own name, where there is one.
        uniform: every action offered was as probable; then no column holds the propensity.

    Raises:
        FieldError: there is no such file, field or column, or one that is needed is missing.
    """
    if path is None:
        raise FieldError("path", wanted="the file to read", got=None)
    check_file(path)
    given = dict(columns or {})
    for field in given:
        if field not in FIELDS and not field.startswith(CONTEXT):
            raise FieldError.choice("map", [*FIELDS, f"{CONTEXT}NAME"], field)
    with opened(path, {}) as reader:
        there = reader.schema.names
    for field, column in given.items():
        if column not in there:
            raise FieldError.choice(f"map.{field}", there, column)
    known = {field: field for field in FIELDS if field in there and field not in given} | given
    if uniform and "propensity" in given:
        raise FieldError("map.propensity", wanted="left out with --uniform, which says it", got=given["propensity"])
    if uniform:
        known.pop("propensity", None)
    for field in NEEDED:
        if field not in known and not (uniform and field == "propensity"):
            raise FieldError(f"map.{field}", wanted=f"the column that holds it, one of {', '.join(there)}", got=None)
    left_out = [0]
    return [Found(name, path.name, _tables(path, name, known, left_out), left_out=lambda: {"undrawn": left_out[0]})]


def _tables(path: Path, name: str, known: Mapping[str, str], left_out: list[int]) -> Iterator[pa.Table]:
    for rows in numbered(path, known):
        drawn = rows.filter(rows["propensity"].is_valid()) if "propensity" in known else rows
        left_out[0] += len(rows) - len(drawn)
        if len(drawn):
            yield _table(drawn, name)


def numbered(path: Path, known: Mapping[str, str]) -> Iterator[pa.Table]:
    """Yield the file's rows, part by part: the columns of the fields `known`, and ``#``, each row's number in the file.

    Raises:
        FieldError: as `opened` and `batches_of`.
    """
    first = 0
    with opened(path, known) as reader:
        for batch in batches_of(reader):
            rows = pa.Table.from_batches([batch])
            number = pa.array(np.arange(first, first + len(rows)))
            first += len(rows)
            yield pa.table({field: rows[column] for field, column in known.items()} | {"#": number})


def _table(rows: pa.Table, name: str) -> pa.Table:
    offered = pc.split_pattern(rows["actions"], BETWEEN)
    number = rows["#"].to_pylist()
    index = [
        ids.index(shown) if ids is not None and shown in ids else -1
        for ids, shown in zip(offered.to_pylist(), rows["action"].to_pylist(), strict=True)
    ]
    if -1 in index:
        row = index.index(-1)
        wanted = f"one of the actions offered, {rows['actions'][row].as_py()!r}"
        raise FieldError(f"row {number[row]}: action", wanted=wanted, got=rows["action"][row].as_py())
    events = rows["event"] if "event" in rows.column_names else [f"{name}-{at}" for at in number]
    columns: dict[str, Any] = {
        "event_id": events,
        "ts": times_of(rows["ts"].combine_chunks(), number),
        "action_ids": offered,
        "action_index": index,
        "propensity": rows["propensity"] if "propensity" in rows.column_names else _even(offered),
        "reward": rows["reward"],
        "context": contexts_of(rows),
    }
    for field, column in (
        ("subject", "subject_id"),
        ("episode", "episode_id"),
        ("version", "policy_version"),
        ("step", "step"),
    ):
        if field in rows.column_names:
            columns[column] = rows[field]
    return complete(columns, len(rows))


def _even(offered: pa.ChunkedArray) -> Any:
    return 1.0 / pc.list_value_length(offered).to_numpy()


def contexts_of(rows: pa.Table) -> list[str]:
    """Return the JSON of each row's columns ``context.NAME``."""
    names = [field for field in rows.column_names if field.startswith(CONTEXT)]
    if not names:
        return ["{}"] * len(rows)
    seen = rows.select(names).rename_columns([name.removeprefix(CONTEXT) for name in names])
    return [msgspec.json.encode(row).decode() for row in seen.to_pylist()]


def times_of(column: pa.Array, number: list[int]) -> pa.Array:
    """Return `column`, times or numbers since 1970 in any unit, as the lake's times.

    Args:
        column: the values.
        number: of each row, for the message.

    Raises:
        FieldError: a value is no time.
    """
    if pa.types.is_timestamp(column.type):
        return column.cast(pa.timestamp("us", column.type.tz)).cast(TIME)
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        raise FieldError("ts", wanted="times: RFC 3339, or numbers since 1970", got=column[0].as_py())
    values = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
    if not np.isfinite(values).all() or values.min() < 0:
        row = int(np.flatnonzero(~(values >= 0))[0])
        raise FieldError(f"row {number[row]}: ts", wanted="a time since 1970", got=column[row].as_py())
    whole = column.cast(pa.int64(), safe=False).to_numpy(zero_copy_only=False)
    scale = next(scale for least, scale in _UNITS if values.max() >= least)
    fraction = np.round((values - np.floor(values)) * scale).astype(np.int64)
    return pa.array(whole * scale + fraction, pa.int64()).cast(TIME)


def opened(path: Path, known: Mapping[str, str]) -> pv.CSVStreamingReader:
    """Open the file to read the columns of the fields `known`; all columns where there are none.

    Raises:
        FieldError: it is no CSV file, or a field's type is another.
    """
    # Ids stay as they are written: 007 is not 7.
    convert = pv.ConvertOptions(
        include_columns=sorted(set(known.values())) or None,
        column_types={column: _TYPES[field] for field, column in known.items() if field in _TYPES},
        null_values=_NULLS,
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
    )
    try:
        return pv.open_csv(path, read_options=pv.ReadOptions(block_size=_BLOCK_BYTES), convert_options=convert)
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        raise FieldError("path", wanted="a CSV file with a line of names and of these types", got=error) from error


def batches_of(reader: pv.CSVStreamingReader) -> Iterator[pa.RecordBatch]:
    """Yield what `reader` reads.

    Raises:
        FieldError: a column changes its type.
    """
    while True:
        try:
            yield reader.read_next_batch()
        except StopIteration:
            return
        except (pa.ArrowInvalid, UnicodeDecodeError) as error:
            raise FieldError("path", wanted="CSV whose columns keep their types", got=error) from error


FORMAT = Format(find)
