"""Columns of the lake from the records of a stretch of one log partition.

Every column is built from flat buffers: no row becomes a Python object again on its way into Parquet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from msgspec.structs import astuple

from pipelines.lake.schemas import DECISION_FIELDS, DOUBLES, LOGGED, OUTCOME_FIELDS, OUTCOMES, STRINGS, TIME
from pipelines.log.protocol import Message

RAW_FIELDS = ("context", "actions", "feature_snapshot")
"""Fields that stay JSON text."""

_encode = msgspec.json.Encoder().encode
_decode_numbers = msgspec.json.Decoder(list[list[float]]).decode


def decision_columns(records: Sequence[Any], messages: Sequence[Message]) -> pa.RecordBatch:
    """Return the rows of `records` ([n] decisions), which came in `messages` ([n], all of one partition).

    `action_ids` and `pmf` may still be raw JSON: they then go into their columns without becoming objects.

    Raises:
        pa.ArrowException: raw JSON is no valid UTF-8, or a number does not fit its column.
        msgspec.DecodeError: raw `action_ids` are no list of strings, or `pmf` is none of numbers.
    """
    columns = _by_name(records)
    arrays = _position(columns, messages)
    for field in DECISION_FIELDS:
        column = columns.get(field.name, ())
        if field.name in RAW_FIELDS:
            arrays[field.name] = _texts(column)
        elif field.name == "pmf" and column and isinstance(column[0], msgspec.Raw):
            arrays[field.name] = _raw_number_lists(column)
        elif field.type == DOUBLES:
            arrays[field.name] = _number_lists(column)
        elif field.name == "action_ids" and column and isinstance(column[0], msgspec.Raw):
            arrays[field.name] = _raw_text_lists(column)
        else:
            arrays[field.name] = pa.array(column, field.type)
    return pa.RecordBatch.from_arrays([arrays[name] for name in LOGGED.names], schema=LOGGED)


def outcome_columns(records: Sequence[Any], messages: Sequence[Message]) -> pa.RecordBatch:
    """Return the rows of `records` ([n] outcomes), which came in `messages` ([n], all of one partition)."""
    columns = _by_name(records)
    arrays = _position(columns, messages)
    for field in OUTCOME_FIELDS:
        arrays[field.name] = pa.array(columns.get(field.name, ()), field.type)
    spools: list[str | None] = [None] * len(messages)
    offsets: list[int | None] = [None] * len(messages)
    for row, message in enumerate(messages):
        if message.headers:
            found = dict(message.headers)
            offset = found.get("spool_offset", b"")
            if "spool" in found and offset.isdigit() and len(offset) < 19:
                spools[row], offsets[row] = found["spool"].decode(errors="replace"), int(offset)
    arrays["spool"], arrays["spool_offset"] = pa.array(spools, pa.string()), pa.array(offsets, pa.int64())
    return pa.RecordBatch.from_arrays([arrays[name] for name in OUTCOMES.names], schema=OUTCOMES)


def _by_name(records: Sequence[Any]) -> dict[str, Sequence[Any]]:
    if not records:
        return {}
    return dict(zip(records[0].__struct_fields__, zip(*map(astuple, records), strict=True), strict=True))


def _position(columns: Mapping[str, Sequence[Any]], messages: Sequence[Message]) -> dict[str, pa.Array]:
    appended = np.array([message.ts_ms for message in messages], np.int64) * 1000
    return {
        "loop": pa.array(columns.get("loop", ()), pa.string()),
        "partition": pa.array(np.full(len(messages), messages[0].partition if messages else 0, np.int32)),
        "offset": pa.array([message.offset for message in messages], pa.int64()),
        "appended_at": pa.array(appended).view(TIME),
    }


def _texts(column: Sequence[Any]) -> pa.Array:
    texts = pa.StringArray.from_buffers(len(column), pa.py_buffer(_offsets(column)), pa.py_buffer(b"".join(column)))
    texts.validate(full=True)  # UTF-8
    return texts


def _number_lists(column: Sequence[Any]) -> pa.Array:
    if None in column:
        return pa.array(column, DOUBLES)
    offsets = _offsets(column)
    flat = np.fromiter(chain.from_iterable(column), np.float64, int(offsets[-1]))
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat), type=DOUBLES)


def _raw_number_lists(column: Sequence[Any]) -> pa.Array:
    """Return the lists of numbers in `column`, raw JSON: written one behind another and read by one call."""
    return _number_lists(_decode_numbers(_encode(column)))


def _raw_text_lists(column: Sequence[Any]) -> pa.Array:
    """Return the lists of texts in `column`, raw JSON that is known to be valid.

    Without a backslash every quote begins or ends a text. When there are as many commas as one list per row of all
    these texts needs, and as many brackets as rows, none of them is inside a text, and leaving out the punctuation
    leaves the texts; anything else in the lists would show in the number of bytes left.
    """
    joined = b"".join(column)
    quotes = np.flatnonzero(np.frombuffer(joined, np.uint8) == ord('"'))
    rows, texts = len(column), len(quotes) // 2
    ends = np.zeros(texts + 1, np.int32)
    if b"\\" not in joined and joined.count(b"[") == joined.count(b"]") == rows and joined.count(b",") == texts - rows:
        data = joined.translate(None, b'"[],')
        np.cumsum(quotes[1::2] - quotes[::2] - 1, out=ends[1:])
        if len(data) == ends[-1]:
            values = pa.StringArray.from_buffers(texts, pa.py_buffer(ends), pa.py_buffer(data))
            values.validate(full=True)  # UTF-8
            starts = np.searchsorted(quotes, _offsets(column)).astype(np.int32) // 2
            return pa.ListArray.from_arrays(pa.array(starts), values, type=STRINGS)
    return pa.array(msgspec.json.decode(b"[" + b",".join(column) + b"]", type=list[list[str]]), STRINGS)


def _offsets(column: Sequence[Any]) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    offsets = np.zeros(len(column) + 1, np.int32)
    np.cumsum(list(map(len, column)), out=offsets[1:])
    return offsets
