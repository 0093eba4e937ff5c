"""Parquet files whose columns have names of their own: a map says which column, or field of a struct, is what.

Fields are the lake's columns. Beside them ``action`` is the id of the drawn action, in place of its index, and
``context.NAME`` makes a column a feature. What nothing is mapped to and has no name of ours is left alone.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute

from decision.errors import FieldError
from pipelines.formats.columns import CONTEXT, lists_of
from pipelines.formats.rows import REQUIRED
from pipelines.lake.schemas import INTERACTIONS

pc: Any = pyarrow.compute  # its functions are made when it is imported; type checkers do not see them

ACTION = "action"
NEEDED = (*REQUIRED, "reward")
_OURS = ("loop", "partition", "offset", "schema_version", "features_version")
FIELDS = (ACTION, *(name for name in INTERACTIONS.names if name not in _OURS and not name.startswith("context_")))
_SHOWN = 12


class Place(NamedTuple):
    """Where a field stands: in a column, or below it in a struct."""

    column: str
    inside: tuple[str, ...] = ()

    def of(self, batch: pa.RecordBatch) -> pa.Array:
        """Return the field's values in a batch; null where the struct is."""
        values = batch[self.column]
        for name in self.inside:
            values = pc.struct_field(values, name)
        return values


def places_of(schema: pa.Schema, columns: Mapping[str, str]) -> dict[str, Place]:
    """Return where each field stands: as `columns` says, or in the column of its own name.

    Args:
        schema: of the file.
        columns: {field: column}, or {field: ``column.name`` of a struct}.

    Raises:
        FieldError: there is no such field or column, two say the same, or one that is needed is missing.
    """
    for field in columns:
        if field not in FIELDS and not (field.startswith(CONTEXT) and len(field) > len(CONTEXT)):
            raise FieldError.choice("map", [*FIELDS, f"{CONTEXT}NAME"], field)
    parts = [field for field in columns if field.startswith(CONTEXT)]
    if parts and "context" in columns:
        raise FieldError("map.context", wanted=f"the whole context, without {parts[0]}", got=columns["context"])
    if ACTION in columns and "action_index" in columns:
        raise FieldError("map.action", wanted="left out with action_index, which says it", got=columns[ACTION])
    found = {field: _place(schema, field, column) for field, column in columns.items()}
    own = {name for name in FIELDS if name in schema.names and name not in columns and name != ACTION}
    own -= {"action_index"} if ACTION in columns else set()
    own -= {"context"} if parts else set()
    found |= {name: Place(name) for name in INTERACTIONS.names if name in own}
    for field in NEEDED:
        if field not in found and field != "event_id" and not (field == "action_index" and ACTION in found):
            shown = ", ".join(schema.names[:_SHOWN]) + (", ..." if len(schema.names) > _SHOWN else "")
            also = f" (or map.{ACTION}, the id)" if field == "action_index" else ""
            raise FieldError(f"map.{field}{also}", wanted=f"the column that holds it, of {shown}", got=None)
    return found


def features_of(values: Mapping[str, pa.Array]) -> pa.Array:
    """Return [n] JSON objects of the columns, {name: [n] values}; what is null is not there."""
    rows = zip(*(each.to_pylist(maps_as_pydicts="strict") for each in values.values()), strict=True)
    objects = (plain({name: None if _is_nan(v) else v for name, v in zip(values, row, strict=True)}) for row in rows)
    return pa.array([msgspec.json.encode(each).decode() for each in objects], pa.string())


def ids_in(values: pa.Array) -> pa.Array:
    """Return [n] lists of ids as texts: of lists, of JSON, or of ids with | between them."""
    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        return pa.array(lists_of(pa.chunked_array([values.cast(pa.string())])), pa.list_(pa.string()))
    return values


def index_of(actions: Sequence[Any], offered: Sequence[list[Any] | None], rows: Any) -> pa.Array:
    """Return [n] which of the actions offered each row drew.

    Raises:
        FieldError: it is none of them.
    """
    index = list[int]()
    for row, action, ids in zip(rows, actions, offered, strict=True):
        if ids is None:
            raise FieldError(f"row {row}: action_ids", wanted="the ids offered", got=None)
        texts = [str(id) for id in ids]
        if action is None or str(action) not in texts:
            raise FieldError(f"row {row}: {ACTION}", wanted=f"one of the actions offered, {texts[:_SHOWN]}", got=action)
        index.append(texts.index(str(action)))
    return pa.array(np.array(index, dtype=np.int64))


def plain(value: Any) -> Any:
    """Return `value` as JSON has it. A struct has every name that some row has, so null says that there is none."""
    if isinstance(value, dict):
        return {name: plain(entry) for name, entry in value.items() if entry is not None}
    if isinstance(value, list):
        return [plain(entry) for entry in value]
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return None if isinstance(value, float) and math.isnan(value) else value


def _place(schema: pa.Schema, field: str, column: str) -> Place:
    if column in schema.names:
        return Place(column)
    first, *inside = column.split(".")
    if first not in schema.names:
        raise FieldError.choice(f"map.{field}", list(schema.names), column)
    kind = schema.field(first).type
    for depth, name in enumerate(inside):
        known = [kind.field(at).name for at in range(kind.num_fields)] if pa.types.is_struct(kind) else []
        if name not in known:
            path = ".".join([first, *inside[:depth]])
            wanted = f"a field of the struct {path}, one of {', '.join(known)}" if known else f"{path} alone, no struct"
            raise FieldError(f"map.{field}", wanted=wanted, got=column)
        kind = kind.field(name).type
    return Place(first, tuple(inside))


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)
