"""Interaction rows made in one go, as the join would have left them: for logs that are too long to be played."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute

from decision.batch import Floats, Ints
from pipelines.lake.features import with_features
from pipelines.lake.lake import Lake
from pipelines.lake.schemas import INTERACTIONS, TIME

pc: Any = pyarrow.compute  # its functions are made when it is imported; type checkers do not see them

START_US = round(datetime(2026, 1, 1, tzinfo=UTC).timestamp() * 1e6)
DAY_US = 86_400_000_000


def rows_of(
    loop: str,
    *,
    ts: Ints,
    reward: Floats,
    contexts: Sequence[Mapping[str, object]],
    context: Ints,
    actions: Sequence[Mapping[str, object]],
    chosen: Ints,
    pmf: Floats | None = None,
    first: int = 0,
    default: float = 0.0,
    reward_version: str = "1",
    partition: int = 0,
    version: str = "baseline:uniform",
) -> pa.Table:
    """Return [n] settled interactions.

    Args:
        loop: name of the loop.
        ts: [n] microseconds since 1970.
        reward: [n]; `default` where nothing happened.
        contexts: those there are.
        context: [n] which of them each row has.
        actions: the k that are offered in every row; their ids are a0, a1, ...
        chosen: [n] the drawn one.
        pmf: [n, k] what it was drawn from; None for uniform.
        first: number of the first row.
        default: reward of a decision after which nothing happened.
        reward_version: of the reward's definition.
        partition: log partition.
        version: the policy that drew.
    """
    n, k = ts.size, len(actions)
    numbers = first + np.arange(n)
    texts = pa.array([msgspec.json.encode(one).decode() for one in contexts], pa.string())
    empty = pa.array(["{}"] * len(contexts), pa.string())
    flat = with_features(pa.table({"context": texts, "feature_snapshot": empty}))
    pmf = np.full((n, k), 1.0 / k) if pmf is None else pmf
    lists = pa.array(np.arange(n + 1) * k, pa.int32())
    times = pa.array(ts).cast(TIME)
    columns: dict[str, Any] = {
        "loop": _same(loop, n),
        "partition": np.full(n, partition, np.int32),
        "offset": numbers,
        "appended_at": times,
        "schema_version": np.full(n, 2, np.int32),
        "event_id": pc.binary_join_element_wise(loop, pa.array(numbers).cast(pa.string()), "-"),
        "slot": _same("", n),
        "ts": times,
        "actions": _same(msgspec.json.encode(actions).decode(), n),
        "action_ids": pa.ListArray.from_arrays(
            lists, pa.array([f"a{i}" for i in range(k)]).take(pa.array(np.tile(np.arange(k), n)))
        ),
        "pmf": pa.ListArray.from_arrays(lists, pa.array(pmf.ravel())),
        "action_index": chosen.astype(np.int32),
        "propensity": pmf[np.arange(n), chosen],
        "guard_weight": np.zeros(n),
        "guard_version": np.zeros(n, np.int64),
        "mode": _same("online", n),
        "deferred": np.zeros(n, np.bool_),
        "policy_version": _same(version, n),
        "baseline_version": _same("uniform", n),
        "seed": numbers,
        "pass_probability": np.ones(n),
        "state": pa.array(["expired", "joined"]).take(pa.array((reward != default).astype(np.int64))),
        "reward": reward,
        "clipped": np.zeros(n, np.bool_),
        "matured_at": pa.array(ts + 600_000_000).cast(TIME),
        "reward_version": _same(reward_version, n),
        "outcomes_until": np.full(n, 1 << 60),
        "window_us": np.full(n, 600_000_000),
    }
    taken = flat.take(pa.array(context))
    columns |= {name: taken[name] for name in flat.column_names}
    return pa.table(
        [
            _cast(columns[field.name], field.type) if field.name in columns else pa.nulls(n, field.type)
            for field in INTERACTIONS
        ],
        schema=INTERACTIONS,
    )


def append(lake: Lake, tables: Iterator[pa.Table] | Sequence[pa.Table]) -> None:
    """Write each table to files of its own and commit them all at once."""
    seen = lake.table("interactions")
    files = [action for table in tables for action in lake.write("interactions", table)]
    lake.commit("interactions", seen, files, {})


def _same(text: str, n: int) -> pa.Array:
    return pa.repeat(pa.scalar(text, pa.string()), n)


def _cast(column: Any, kind: pa.DataType) -> pa.Array | pa.ChunkedArray:
    return column.cast(kind) if isinstance(column, pa.Array | pa.ChunkedArray) else pa.array(column, kind)
