"""Columns of the lake from the records of a stretch of one log partition.

Every column is built from flat buffers: no row becomes a Python object again on its way into Parquet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from msgspec.structs import astuple

from pipelines.lake.schemas import DECISION_FIELDS, LOGGED, OUTCOME_FIELDS, OUTCOMES, TIME
from pipelines.log.protocol import Stretch

RAW_FIELDS = ("context", "actions", "feature_snapshot")
"""Fields that stay JSON text."""


def decision_columns(records: Sequence[Any], messages: Stretch) -> pa.RecordBatch:
    """Return the rows of `records` ([n] decisions), which came in `messages` ([n]).

    Raises:
        pa.ArrowException: raw JSON is no valid UTF-8, or a number does not fit its column.
    """
    columns = _by_name(records)
    arrays = _position(columns, messages)
    for field in DECISION_FIELDS:
        column = columns.get(field.name, ())
        if field.name in RAW_FIELDS:
            arrays[field.name] = _texts(column)
        else:
            arrays[field.name] = pa.array(column, field.type)
    return pa.RecordBatch.from_arrays([arrays[name] for name in LOGGED.names], schema=LOGGED)


def outcome_columns(records: Sequence[Any], messages: Stretch) -> pa.RecordBatch:
    """Return the rows of `records` ([n] outcomes), which came in `messages` ([n])."""
    columns = _by_name(records)
    arrays = _position(columns, messages)
    for field in OUTCOME_FIELDS:
        arrays[field.name] = pa.array(columns.get(field.name, ()), field.type)
    spools: list[str | None] = [None] * len(messages)
    offsets: list[int | None] = [None] * len(messages)
    for row, headers in enumerate(messages.headers):
        if headers:
            found = dict(headers)
            offset = found.get("spool_offset", b"")
            if "spool" in found and offset.isdigit() and len(offset) < 19:
                spools[row], offsets[row] = found["spool"].decode(errors="replace"), int(offset)
    arrays["spool"], arrays["spool_offset"] = pa.array(spools, pa.string()), pa.array(offsets, pa.int64())
    return pa.RecordBatch.from_arrays([arrays[name] for name in OUTCOMES.names], schema=OUTCOMES)


def _by_name(records: Sequence[Any]) -> dict[str, Sequence[Any]]:
    if not records:
        return {}
    return dict(zip(records[0].__struct_fields__, zip(*map(astuple, records), strict=True), strict=True))


def _position(columns: Mapping[str, Sequence[Any]], messages: Stretch) -> dict[str, pa.Array]:
    return {
        "loop": pa.array(columns.get("loop", ()), pa.string()),
        "partition": pa.array(np.full(len(messages), messages.partition, np.int32)),
        "offset": pa.array(messages.offsets, pa.int64()),
        "appended_at": pa.array(np.array(messages.ts_ms, np.int64) * 1000).view(TIME),
    }


def _texts(column: Sequence[Any]) -> pa.Array:
    texts = pa.StringArray.from_buffers(len(column), pa.py_buffer(_offsets(column)), pa.py_buffer(b"".join(column)))
    texts.validate(full=True)  # UTF-8
    return texts


def _offsets(column: Sequence[Any]) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    offsets = np.zeros(len(column) + 1, np.int32)
    np.cumsum(list(map(len, column)), out=offsets[1:])
    return offsets
