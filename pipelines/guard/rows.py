"""The settled decisions of a rollout, read from the interactions between two positions of each log partition.

A partition is read up to the join's mark: below it every decision is settled for good, so what is read between two
positions is the same whenever it is read, and outcomes that come late change nothing.

Decisions that the candidate was served in were made after it was trained, so none of them was learned from and all of
them count; the hash split of earlier logs is the gate's business. Those served at weight 0 say nothing about actions
that the policy in charge does not take and are left out, as are those that the candidate failed to answer.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from decision.batch import Floats
from pipelines.guard.state import GuardState, Rows
from pipelines.join import join_mark, partitions_of, place_of
from pipelines.lake import Lake, mark_of

EXACT = 1e-9
"""Most that a logged propensity may differ from the mixture of the logged distributions."""
ROWS_PER_FOLD = 50_000
_COLUMNS = [
    *("ts", "event_id", "slot", "state", "reward", "reward_version", "policy_version", "mode", "propensity"),
    *("action_index", "pmf_baseline", "pmf_candidate", "guard_weight", "guard_version"),
]


def marks(lake: Lake, loop: str) -> dict[int, int]:
    """Return {log partition: offset} below which every decision of `loop` is settled."""
    table = lake.table("interactions")
    return {number: mark_of(table, join_mark(loop, number)) or 0 for number in partitions_of(table, loop)}


def next_positions(positions: dict[int, int], settled: dict[int, int], rows: int = ROWS_PER_FOLD) -> dict[int, int]:
    """Return up to where to fold next: at most `rows` offsets of each partition."""
    return {
        number: max(positions.get(number, 0), min(mark, positions.get(number, 0) + rows))
        for number, mark in settled.items()
    }


def read(lake: Lake, state: GuardState, until: dict[int, int]) -> tuple[Rows, dict[str, int], int]:
    """Return the decisions of the state's attempt between its positions and `until`, in decision order.

    Returns:
        The rows; how many settled decisions were left out, by reason; how many propensities are not the mixture's.
    """
    assert state.terms is not None  # noqa: S101 - set with every attempt
    data = lake.table("interactions").to_pyarrow_dataset()
    parts: list[pa.Table] = []
    for number, end in sorted(until.items()):
        between = (pc.field("offset") >= state.positions.get(number, 0)) & (pc.field("offset") < end)
        if end > state.positions.get(number, 0):
            parts.append(data.to_table(_COLUMNS, filter=place_of(state.loop, number) & between))
    if not parts:
        nothing = np.zeros(0)
        return Rows(nothing, nothing, nothing, nothing), {}, 0
    rows = pa.concat_tables(parts).sort_by([(name, "ascending") for name in ("ts", "event_id", "slot")])
    skipped: Counter[str] = Counter()

    def keep(reason: str, wanted: pa.ChunkedArray) -> None:
        nonlocal rows
        kept = rows.filter(wanted)
        skipped[reason] += len(rows) - len(kept)
        rows = kept

    # The arguments see the rows that the line before left.
    keep("another attempt", _at_least(rows["guard_version"], state.since_version))
    keep("not served", _above(rows["guard_weight"], 0.0))
    keep("not served", rows["pmf_candidate"].is_valid())
    keep("not served", rows["pmf_baseline"].is_valid())
    keep("not served", _equal(rows["mode"], "online"))
    keep("another policy in charge", _equal(rows["policy_version"], state.baseline_version))
    keep("dropped", rows["reward"].is_valid())
    keep("another reward definition", _equal(rows["reward_version"], state.terms.reward_version))
    index = rows["action_index"].to_numpy().astype(np.int64)
    propensity, rho = rows["propensity"].to_numpy(), rows["guard_weight"].to_numpy()
    baseline, candidate = _chosen(rows["pmf_baseline"], index), _chosen(rows["pmf_candidate"], index)
    exact = np.abs(propensity - ((1.0 - rho) * baseline + rho * candidate)) <= EXACT * propensity
    scale = state.terms.maximum - state.terms.minimum
    reward = np.maximum((rows["reward"].to_numpy().astype(np.float64) - state.terms.minimum) / scale, 0.0)
    found = Rows(reward, candidate / propensity, baseline / propensity, rho)
    return Rows(*(column[exact] for column in found)), {k: v for k, v in skipped.items() if v}, int((~exact).sum())


def _chosen(column: pa.ChunkedArray, index: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Floats:
    lists = column.combine_chunks()
    flat = lists.flatten().to_numpy().astype(np.float64)
    sizes = pc.call_function("list_value_length", [lists]).to_numpy().astype(np.int64)
    return flat[np.cumsum(sizes) - sizes + index]


def _equal(column: pa.ChunkedArray, value: str) -> pa.ChunkedArray:
    return pc.call_function("equal", [column, pa.scalar(value, column.type)])


def _above(column: pa.ChunkedArray, value: float) -> pa.ChunkedArray:
    return pc.call_function("greater", [column, pa.scalar(value, column.type)])


def _at_least(column: pa.ChunkedArray, value: int) -> pa.ChunkedArray:
    return pc.call_function("greater_equal", [column, pa.scalar(value, column.type)])
