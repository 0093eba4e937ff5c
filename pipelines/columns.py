"""Columns of the lake from the records of a stretch of one log partition.

Every column is built from flat buffers: no row becomes a Python object again on its way into Parquet.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from operator import attrgetter
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from decision.errors import FieldError
from pipelines.log.protocol import Message
from pipelines.tables import DECISION_FIELDS, DECISIONS, DOUBLES, OUTCOME_FIELDS, OUTCOMES, STRINGS, TIME

RAW_FIELDS = ("context", "actions", "feature_snapshot")
"""Fields that stay JSON text."""

_QUOTE, _OPEN, _CLOSE, _COMMA = b'"[],'
_getters = {field.name: attrgetter(field.name) for field in (*DECISION_FIELDS, *OUTCOME_FIELDS)}
_get_loop = attrgetter("loop")


def decision_columns(records: Sequence[Any], messages: Sequence[Message]) -> pa.RecordBatch:
    """Return the rows of `records` ([n] decisions), which came in `messages` ([n], all of one partition).

    `action_ids` may still be raw JSON.

    Raises:
        pa.ArrowException: raw JSON is no valid UTF-8, or a number does not fit its column.
        msgspec.DecodeError: raw `action_ids` are no list of strings.
        FieldError: raw `action_ids` are no list of strings.
    """
    arrays = _position(records, messages)
    for field in DECISION_FIELDS:
        column = list(map(_getters[field.name], records))
        if field.name in RAW_FIELDS:
            arrays[field.name] = _texts(column)
        elif field.type == DOUBLES:
            arrays[field.name] = _number_lists(column)
        elif field.name == "action_ids" and column and isinstance(column[0], msgspec.Raw):
            arrays[field.name] = _raw_text_lists(column)
        else:
            arrays[field.name] = pa.array(column, field.type)
    return pa.RecordBatch.from_arrays([arrays[name] for name in DECISIONS.names], schema=DECISIONS)


def outcome_columns(records: Sequence[Any], messages: Sequence[Message]) -> pa.RecordBatch:
    """Return the rows of `records` ([n] outcomes), which came in `messages` ([n], all of one partition)."""
    arrays = _position(records, messages)
    for field in OUTCOME_FIELDS:
        arrays[field.name] = pa.array(list(map(_getters[field.name], records)), field.type)
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


def _position(records: Sequence[Any], messages: Sequence[Message]) -> dict[str, pa.Array]:
    appended = np.array([message.ts_ms for message in messages], np.int64) * 1000
    return {
        "loop": pa.array(list(map(_get_loop, records)), pa.string()),
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


def _raw_text_lists(column: Sequence[Any]) -> pa.Array:
    """Return the lists of texts in raw JSON that is known to be valid.

    Without a backslash every quote begins or ends a text, so the texts are the bytes between odd and even quotes, and
    the lists are of texts only when nothing but brackets and commas is left outside.
    """
    joined = b"".join(column)
    if b"\\" in joined:
        lists = msgspec.json.decode(b"[" + b",".join(column) + b"]", type=list[list[str]])
        return pa.array(lists, STRINGS)
    bytes_ = np.frombuffer(joined, np.uint8)
    is_quote = bytes_ == _QUOTE
    inside = np.cumsum(is_quote, dtype=np.uint32) & 1 == 1
    outside = np.bincount(bytes_[~inside & ~is_quote], minlength=256)
    brackets = outside[_OPEN] == outside[_CLOSE] == len(column)
    if not brackets or outside[_OPEN] + outside[_CLOSE] + outside[_COMMA] != outside.sum():
        raise FieldError("action_ids", wanted="lists of texts", got=bytes(column[0]))
    quotes = np.flatnonzero(is_quote)
    ends = np.zeros(len(quotes) // 2 + 1, np.int32)
    np.cumsum(quotes[1::2] - quotes[::2] - 1, out=ends[1:])
    texts = pa.StringArray.from_buffers(
        len(quotes) // 2, pa.py_buffer(ends), pa.py_buffer(bytes_[inside & ~is_quote].tobytes())
    )
    texts.validate(full=True)  # UTF-8
    lists = np.searchsorted(quotes, _offsets(column)).astype(np.int32) // 2
    return pa.ListArray.from_arrays(pa.array(lists), texts, type=STRINGS)


def _offsets(column: Sequence[Any]) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    offsets = np.zeros(len(column) + 1, np.int32)
    np.cumsum(list(map(len, column)), out=offsets[1:])
    return offsets
