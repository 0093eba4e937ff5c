"""Interaction rows: mature decisions of one log partition with the outcomes that belong to them."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from deltalake import DeltaTable

from decision.batch import Ints
from decision.join import (
    CONFLICT,
    DROPPED,
    NOT_ACTIVATED,
    SKEW_US,
    STATES,
    DecisionRows,
    OutcomeRows,
    RewardRule,
    Settled,
    match,
    settle,
)
from pipelines.ingestion.conflicts import Conflicts
from pipelines.interactions.arrays import unreadable
from pipelines.lake.lake import dataset
from pipelines.lake.schemas import COUNTED, INTERACTIONS, TIME

INVALID_FEATURES = "invalid_features"
"""Why a decision is dropped whose context or actions no trainer can read."""


def settled_rows(
    decisions: DeltaTable,
    outcomes: DeltaTable,
    place: ds.Expression,
    offsets: Ints,
    until: Ints,
    conflicts: Conflicts,
    rule: RewardRule,
    reward_version: str,
    now_us: int,
) -> pa.Table:
    """Return the interaction rows of mature decisions, in the order of their offsets.

    Args:
        decisions: the decisions.
        outcomes: the outcomes.
        place: condition for the rows of the loop and the log partition, in either table.
        offsets: [n] >= 1 offsets of the decisions, ascending.
        until: [n] outcomes at this offset and beyond do not count.
        conflicts: other answers to events of the partition, as far as they count.
        rule: the reward's definition.
        reward_version: its name.
        now_us: a time at which all of the decisions are mature, microseconds since 1970.
    """
    rows = _decisions_at(decisions, place, offsets)
    ts = rows["ts"].cast(pa.int64()).to_numpy()
    found = _outcomes_of(outcomes, place, rows, ts, rule)
    arrived = _outcome_rows(rows, found)
    ours = DecisionRows(
        ts,
        rows["deferred"].to_numpy(),
        until,
        _firsts(rows, rows),
        None if arrived.action is None else drawn_ids(rows),
        conflicts.among(rows["event_id"].to_pylist()),
    )
    settled = settle(ours, arrived, rule=rule, now_us=now_us)
    reason: list[str | None] = [None if state != DROPPED else NOT_ACTIVATED for state in settled.state.tolist()]
    for row in np.flatnonzero(settled.conflict).tolist():
        reason[row] = CONFLICT
    for row in unreadable(rows).tolist():
        reason[row] = INVALID_FEATURES
    dropped = np.array([text is not None for text in reason])
    columns: dict[str, Any] = {
        "state": ["dropped" if gone else STATES[state] for gone, state in zip(dropped, settled.state, strict=True)],
        "reason": reason,
        "reward": pa.array(settled.reward, mask=dropped),
        "clipped": settled.clipped & ~dropped,
        "outcomes": _counted(found, settled),
        "matured_at": pa.array(ts + rule.window_us).cast(TIME),
        "reward_version": [reward_version] * len(rows),
        "outcomes_until": until,
        "window_us": pa.nulls(len(rows), pa.int64()) if rule.late else np.full(len(rows), rule.window_us),
        "decisions_until": np.full(len(rows), conflicts.until),
    }
    for name, column in columns.items():
        rows = rows.append_column(
            INTERACTIONS.field(name),
            pa.array(column, INTERACTIONS.field(name).type) if not isinstance(column, pa.Array) else column,
        )
    return rows.select(INTERACTIONS.names).cast(INTERACTIONS)


def drawn_ids(rows: pa.Table) -> list[str]:
    """Return [n] ids of the actions drawn."""
    offered = rows["action_ids"].combine_chunks()
    at = offered.offsets.to_numpy()[:-1] + rows["action_index"].to_numpy()
    return offered.values.take(pa.array(at)).to_pylist()


def _decisions_at(decisions: DeltaTable, place: ds.Expression, offsets: Ints) -> pa.Table:
    between = place & (pc.field("offset") >= int(offsets[0])) & (pc.field("offset") <= int(offsets[-1]))
    rows = dataset("decisions", decisions).to_table(filter=between)
    if len(rows) != len(offsets):
        rows = rows.filter(pa.array(np.isin(rows["offset"].to_numpy(), offsets)))
    return rows.sort_by("offset")


def _outcomes_of(outcomes: DeltaTable, place: ds.Expression, rows: pa.Table, ts: Ints, rule: RewardRule) -> pa.Table:
    ours = place & pc.field("event_id").isin(rows["event_id"].combine_chunks())
    ours &= pc.field("ts") >= _time(int(ts.min()) - SKEW_US)
    if not rule.late:
        ours &= pc.field("ts") <= _time(int(ts.max()) + rule.window_us)
    columns = ["event_id", "slot", "name", "value", "ts", "offset", "idempotency_key", "action_id"]
    return dataset("outcomes", outcomes).to_table([*columns, "spool", "spool_offset"], filter=ours)


def _outcome_rows(rows: pa.Table, found: pa.Table) -> OutcomeRows:
    keys = zip(found["idempotency_key"].to_pylist(), found["spool"].to_pylist(), strict=True)
    names, places = found["name"].to_pylist(), found["spool_offset"].to_pylist()
    return OutcomeRows(
        decision=match(_event_and_slot(rows), _event_and_slot(found)),
        name=names,
        value=found["value"].to_numpy(),
        ts=found["ts"].cast(pa.int64()).to_numpy(),
        offset=found["offset"].to_numpy(),
        identities=[
            _identities(name, key, spool, at) for (key, spool), name, at in zip(keys, names, places, strict=True)
        ],
        event=_firsts(rows, found),
        whole=np.array([not slot for slot in found["slot"].to_pylist()], dtype=np.bool_),
        action=found["action_id"].to_pylist() if found["action_id"].null_count < len(found) else None,
    )


def _identities(name: str, key: str | None, spool: str | None, spool_offset: int | None) -> tuple[Hashable, ...]:
    reported = () if key is None else ((name, key),)
    return reported if spool is None else (*reported, (spool, spool_offset))


def _firsts(rows: pa.Table, of: pa.Table) -> Ints:
    """Return the first of `rows` with the event id of each row in `of`, -1 where there is none."""
    return match(rows["event_id"].to_pylist(), of["event_id"].to_pylist())


def _event_and_slot(rows: pa.Table) -> list[tuple[str, str]]:
    return list(zip(rows["event_id"].to_pylist(), rows["slot"].to_pylist(), strict=True))


def _counted(found: pa.Table, settled: Settled) -> pa.Array:
    columns = found.select(["name", "value", "ts", "offset"]).take(pa.array(settled.counted)).combine_chunks()
    structs = pa.StructArray.from_arrays(
        [columns[field.name].combine_chunks() for field in COUNTED], fields=list(COUNTED)
    )
    kind = INTERACTIONS.field("outcomes").type
    return pa.ListArray.from_arrays(pa.array(settled.offsets.astype(np.int32)), structs, type=kind)


def _time(us: int) -> pa.Scalar:
    return pa.scalar(us, pa.int64()).cast(TIME)
