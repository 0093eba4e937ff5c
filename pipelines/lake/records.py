"""Records back from the lake: what one event's messages said, where the log that brought them is somewhere else."""

from __future__ import annotations

from datetime import UTC
from typing import Any

import msgspec
from deltalake import DeltaTable

from decision.records import Decision, Outcome
from pipelines.lake.schemas import Table
from pipelines.lake.tables import Tables, rows_of

_RAW = ("context", "actions", "feature_snapshot")


def decisions_under(tables: Tables, event_id: str, partition: int, loop: str = "") -> list[Decision]:
    """Return the decisions of an event, one or one per slot, in the order of the log.

    Args:
        tables: the lake's.
        event_id: the event.
        partition: log partition that its key falls into.
        loop: whose; "" for that of the first.
    """
    rows = _rows(tables, "decisions", event_id, partition, loop)
    found = [_decision(row) for row in rows]
    return [decision for decision in found if decision.loop == found[0].loop]


def outcomes_under(tables: Tables, event_id: str, partition: int, loop: str) -> list[Outcome]:
    """Return what was reported of an event, in the order of the log; arguments as `decisions_under`."""
    rows = _rows(tables, "outcomes", event_id, partition, loop)
    return [Outcome(**_fields(row, Outcome)) for row in rows]


def _rows(tables: Tables, name: Table, event_id: str, partition: int, loop: str) -> list[dict[str, Any]]:
    quoted = [value.replace("'", "''") for value in (event_id, loop)]
    where = f"event_id = '{quoted[0]}' AND partition = {partition}" + (f" AND loop = '{quoted[1]}'" if loop else "")
    query = f'SELECT * FROM {name} WHERE {where} ORDER BY "offset"'

    def reading(table: DeltaTable) -> list[dict[str, Any]]:
        return rows_of(query, {name: table})

    return tables.read(name, reading)


def _decision(row: dict[str, Any]) -> Decision:
    fields = _fields(row, Decision)
    fields.update({name: msgspec.Raw(row[name].encode()) for name in _RAW})
    return Decision(**fields)


def _fields(row: dict[str, Any], of: type[msgspec.Struct]) -> dict[str, Any]:
    # what older code did not write is at its default
    fields = {name: row[name] for name in of.__struct_fields__ if row.get(name) is not None}
    return fields | {"ts": row["ts"].astimezone(UTC)}
