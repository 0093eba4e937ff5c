"""Features of subjects that the user uploads as a table: read, checked, and added to the uploads before.

A row says how a subject stood from a time on, with all of its features; the next row of the same subject replaces it.
The table keeps every row, so that a decision of any time can be given the features as they stood then.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import csv

from decision.errors import FieldError, Words
from decision.features import MAX_TEXT_CHARS
from decision.records import MAX_ID_CHARS
from pipelines.features.views import SUBJECT, TIMESTAMP

MAX_FEATURES = 200
MAX_ROWS = 10_000_000
GIVEN_TIME = "ts"
"""Column of an upload that says from when on a row holds."""

_TIME = pa.timestamp("us", "UTC")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,127}")
_TAKEN = (TIMESTAMP, "entity_row_id", "event_expire_timestamp", "rn")


def read_upload(path: Path, *, now: datetime) -> pa.Table:
    """Return the table at `path` with checked columns, one row per subject and time.

    Args:
        path: Parquet, or CSV by its suffix: ``subject_id``, optionally ``ts`` (UTC where it has no offset; `now` where
            the column is missing), and one feature or more: numbers, booleans or text. Empty, null and NaN are absent.
        now: time of the upload.

    Raises:
        FieldError: the file cannot be read, or a column does not fit.
    """
    table = _read(path)
    if SUBJECT not in table.column_names:
        raise FieldError(SUBJECT, wanted="a column", got=None)
    names = [name for name in table.column_names if name not in (SUBJECT, GIVEN_TIME)]
    if not 1 <= len(names) <= MAX_FEATURES:
        raise FieldError("columns", wanted=f"1 to {MAX_FEATURES} features beside {SUBJECT}", got=names)
    _check_names(names)
    if GIVEN_TIME in table.column_names:
        times = _times(table[GIVEN_TIME])
    else:
        times = pa.chunked_array([pa.repeat(pa.scalar(now.astimezone(UTC), _TIME), len(table))])
    columns = {SUBJECT: _subjects(table[SUBJECT]), TIMESTAMP: times}
    columns |= {name: _feature(name, table[name]) for name in names}
    return _last_of_each(pa.table(columns))


def add_upload(earlier: pa.Table, upload: pa.Table) -> pa.Table:
    """Return both tables as one; where both have a row of one subject and time, the upload's.

    Raises:
        FieldError: the upload lacks a feature of the earlier ones, or has it with another type.
    """
    for field in earlier.schema:
        if field.name not in upload.column_names:
            raise FieldError(field.name, wanted="a column, since a row states all features of its subject", got=None)
        # a column without any value has no type of its own
        if _is_empty(upload[field.name]):
            upload = _recast(upload, field.name, field.type)
        elif _is_empty(earlier[field.name]):
            earlier = _recast(earlier, field.name, upload.schema.field(field.name).type)
        elif upload.schema.field(field.name).type != field.type:
            got = str(upload.schema.field(field.name).type)
            raise FieldError(field.name, wanted=f"{field.type}, as before", got=got)
    both = _last_of_each(pa.concat_tables([earlier, upload], promote_options="default"))
    if len(both) > MAX_ROWS:
        raise FieldError("path", wanted=f"at most {MAX_ROWS} rows over all uploads", got=len(both))
    return both


def latest(table: pa.Table, *, now: datetime) -> pa.Table:
    """Return the row of each subject that holds at `now`; none for a subject whose rows all begin later."""
    held = table.filter(pc.field(TIMESTAMP) <= pa.scalar(now.astimezone(UTC), _TIME))
    frame = held.sort_by(TIMESTAMP).append_column("_row", pa.array(np.arange(len(held))))
    rows = frame.group_by(SUBJECT).aggregate([("_row", "max")])["_row_max"]
    return frame.drop_columns("_row").take(rows)


def _read(path: Path) -> pa.Table:
    try:
        if path.suffix.lower() == ".csv":
            # ids stay as written ("007"), and only nothing at all is no value ("NA" may be a country)
            convert = csv.ConvertOptions(
                column_types={SUBJECT: pa.string()}, null_values=["", "NaN", "nan"], strings_can_be_null=True
            )
            table = csv.read_csv(path, convert_options=convert)
        else:
            rows = pq.ParquetFile(path).metadata.num_rows
            if rows > MAX_ROWS:
                raise FieldError("path", wanted=f"at most {MAX_ROWS} rows", got=rows)
            table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise FieldError("path", wanted="a Parquet or CSV table", got=error) from error
    if not 1 <= len(table) <= MAX_ROWS:
        raise FieldError("path", wanted=f"1 to {MAX_ROWS} rows", got=len(table))
    return table


def _check_names(names: list[str]) -> None:
    known: set[str] = set()
    for name in names:
        if not _NAME.fullmatch(name):
            raise FieldError(
                name, wanted='a name of letters, digits, "_", "." and "-" that begins with a letter', got=name
            )
        if name in _TAKEN or name.startswith("stream_") or name.endswith(("_y", "_yyyy")):
            raise FieldError(name, wanted='a name that Feast leaves alone, not "stream_..." nor "..._y"', got=name)
        if name.lower() in known:
            raise FieldError(name, wanted="names that differ in more than capitals", got=names)
        known.add(name.lower())


def _subjects(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if column.null_count:
        raise FieldError(SUBJECT, wanted="given in every row", got=Words(f"empty in {column.null_count}"))
    try:
        ids = column.cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise FieldError(SUBJECT, wanted="text or whole numbers", got=str(column.type)) from error
    if pa.types.is_floating(column.type):
        raise FieldError(SUBJECT, wanted="text or whole numbers", got=str(column.type))
    lengths = pc.call_function("utf8_length", [ids]).to_numpy()
    if not 1 <= lengths.min() <= lengths.max() <= MAX_ID_CHARS:
        raise FieldError(
            SUBJECT, wanted=f"1 to {MAX_ID_CHARS} characters", got=(int(lengths.min()), int(lengths.max()))
        )
    return ids


def _times(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if not pa.types.is_timestamp(column.type):
        raise FieldError(GIVEN_TIME, wanted="times such as 2026-01-31T12:00:00Z", got=str(column.type))
    if column.null_count:
        raise FieldError(GIVEN_TIME, wanted="given in every row", got=Words(f"empty in {column.null_count}"))
    if column.type.tz is None:
        column = column.cast(pa.timestamp(column.type.unit, "UTC"))
    return column.cast(_TIME, safe=False)


def _feature(name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        text = column.cast(pa.string())
        longest = pc.call_function("max", [pc.call_function("utf8_length", [text])]).as_py() or 0
        if longest > MAX_TEXT_CHARS:
            raise FieldError(
                name, wanted=f"text of at most {MAX_TEXT_CHARS} characters", got=Words(f"one of {longest}")
            )
        return text
    if not (
        pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind)
    ):
        raise FieldError(name, wanted="numbers, booleans or text", got=str(kind))
    try:
        numbers = column.cast(pa.float64())
    except pa.ArrowInvalid as error:
        raise FieldError(name, wanted="numbers that a double holds exactly", got=error) from error
    values = numbers.to_numpy()
    if np.isinf(values).any():
        raise FieldError(name, wanted="finite numbers", got=Words("infinite or no number"))
    return pa.chunked_array([pa.array(values, mask=np.isnan(values))])


def _is_empty(column: pa.ChunkedArray) -> bool:
    return column.null_count == len(column)


def _recast(table: pa.Table, name: str, kind: pa.DataType) -> pa.Table:
    return table.set_column(table.column_names.index(name), pa.field(name, kind), pa.nulls(len(table), kind))


def _last_of_each(table: pa.Table) -> pa.Table:
    numbered = table.append_column("_row", pa.array(np.arange(len(table))))
    rows = numbered.group_by([SUBJECT, TIMESTAMP]).aggregate([("_row", "max")])["_row_max"]
    return table.take(rows.combine_chunks().sort()).combine_chunks()
