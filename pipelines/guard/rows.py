"""The settled decisions of a rollout, read from the interactions between two positions of each log partition.

A partition is read up to the join's mark: below it every decision is settled for good, so what is read between two
positions is the same whenever it is read, and outcomes that come late change nothing.

A unit is a decision, or all of a slate or episode that one coin was thrown for. Episodes lie across partitions: theirs
is a position in time, before which those that began are over and settled whole.

Decisions that the candidate was served in were made after it was trained, so none of them was learned from and all of
them count; the hash split of earlier logs is the gate's business. Those served at weight 0 say nothing about actions
that the policy in charge does not take and are left out, as are those that the candidate failed to answer.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from decision.batch import Floats, Ints
from decision.guard.coin import candidate_has, trajectory_weights
from decision.guard.snapshot import segment_of
from pipelines.engines.engine import Engine, LocalEngine, each_of
from pipelines.guard.state import EPISODES, GuardState, Rows, Terms
from pipelines.interactions.join import place_of
from pipelines.interactions.window import join_mark
from pipelines.lake.lake import Lake, dataset
from pipelines.lake.schemas import TIME, Table
from pipelines.lake.tables import mark_of, partitions_of

EXACT = 1e-9
"""Most that a logged propensity may differ from the mixture of the logged distributions."""
ROWS_PER_FOLD = 50_000
_COLUMNS = [
    *("ts", "event_id", "slot", "state", "reward", "reward_version", "policy_version", "mode", "propensity"),
    *("action_index", "pmf_baseline", "pmf_candidate", "guard_weight", "guard_version"),
    *("context", "episode_id"),
]
_LEAST_LOG = -700.0
_NONE = np.zeros(0)
_NOTHING = Rows(_NONE, _NONE, _NONE, _NONE, np.zeros(0, dtype=np.str_))


def marks(lake: Lake, loop: str) -> dict[int, int]:
    """Return {log partition: offset} below which every decision of `loop` is settled."""
    table = lake.table("interactions")
    return {number: mark_of(table, join_mark(loop, number)) or 0 for number in partitions_of(table, loop)}


def next_positions(positions: dict[int, int], settled: dict[int, int], rows: int | None) -> dict[int, int]:
    """Return up to where to fold next: at most `rows` offsets of each partition; None for all of them."""
    return {
        number: max(positions.get(number, 0), mark if rows is None else min(mark, positions.get(number, 0) + rows))
        for number, mark in settled.items()
    }


def episodes_until(lake: Lake, loop: str, episode_s: float) -> dict[int, int]:
    """Return {EPISODES: time in microseconds}: episodes of `loop` that began before are over, and settled whole."""
    settled, latest, open_from = marks(lake, loop), 0, list[int]()
    for number, mark in settled.items():
        place, offset = place_of(loop, number), pc.field("offset")
        ts = _times(lake, "interactions", place & (offset < mark))
        if len(ts):
            latest = max(latest, _us(pc.call_function("max", [ts])) + 1)
        ts = _times(lake, "decisions", place & (offset >= mark))
        if len(ts):
            open_from.append(_us(pc.call_function("min", [ts])))
    return {EPISODES: max(0, min([latest, *open_from]) - round(episode_s * 1e6))}


def _times(lake: Lake, name: Table, where: pc.Expression) -> pa.ChunkedArray:
    return lake.read(name, lambda table: table.to_pyarrow_dataset().to_table(["ts"], filter=where))["ts"]


class _Found(NamedTuple):
    """Units that were found: where each stands in decision order, what was left out, and propensities in doubt."""

    rows: Rows
    order: list[tuple[int, str, str]]
    skipped: Counter[str]
    inexact: int


class _Asked(NamedTuple):
    """What is read, as it is sent to whoever reads a partition."""

    lake: str
    version: int
    state: GuardState
    until: dict[int, int]


def read(
    lake: Lake, state: GuardState, until: dict[int, int], engine: Engine | None = None
) -> tuple[Rows, dict[str, int], int]:
    """Return the units of the state's attempt between its positions and `until`, in decision order.

    Args:
        lake: the tables.
        state: the state.
        until: {log partition: offset}, or the time of episodes.
        engine: who reads the partitions; None for this process, one after the other.

    Returns:
        The rows; how many settled decisions were left out, by reason; how many propensities are not the mixture's.
    """
    moved = [number for number, end in sorted(until.items()) if end > state.positions.get(number, 0)]
    units = [EPISODES] if EPISODES in until else moved
    parts = _parts(lake, state, until, units, engine or LocalEngine(1))
    places = [place for part in parts for place in part.order]
    order = np.array(sorted(range(len(places)), key=places.__getitem__), dtype=np.int64)
    columns = zip(*(part.rows for part in parts), strict=True)
    rows = Rows(*(np.concatenate(column) for column in columns)).take(order) if places else _NOTHING
    skipped = sum((part.skipped for part in parts), Counter[str]())
    return rows, dict(skipped), sum(part.inexact for part in parts)


def _parts(lake: Lake, state: GuardState, until: dict[int, int], units: list[int], engine: Engine) -> list[_Found]:
    while True:
        version = lake.version("interactions")
        try:
            return each_of(engine, _found_in, _Asked(lake.path, version, state, until), units)
        except FileNotFoundError:  # an erasure took the version's files away
            if lake.version("interactions") == version:
                raise


def _found_in(asked: _Asked, unit: int) -> _Found:
    """Return what a partition holds, or all of them of episodes."""
    state = asked.state
    assert state.terms is not None  # noqa: S101 - set with every attempt
    terms, until = state.terms, {unit: asked.until[unit]}
    rows = _table(Lake(asked.lake), asked.version, state, until)
    n = len(rows)
    if n == 0:
        return _Found(_NOTHING, [], Counter(), 0)
    units, first = _units(rows, state, until)
    reason = np.full(n, "", dtype=object)

    def keep(why: str, wanted: pa.ChunkedArray | np.ndarray[Any, Any]) -> None:
        mask = wanted if isinstance(wanted, np.ndarray) else wanted.to_numpy().astype(bool)
        reason[(reason == "") & ~mask] = why

    keep("another attempt", _at_least(rows["guard_version"], state.since_version))
    keep("not served", _above(rows["guard_weight"], 0.0))
    keep("not served", rows["pmf_candidate"].is_valid())
    keep("not served", rows["pmf_baseline"].is_valid())
    keep("not served", _equal(rows["mode"], "online"))
    keep("another policy in charge", _equal(rows["policy_version"], state.baseline_version))
    keep("dropped", rows["reward"].is_valid())
    keep("another reward definition", _equal(rows["reward_version"], terms.reward_version))
    keep("not between the positions", first >= 0)
    # A unit counts whole or not at all, under one weight.
    members = [rows["guard_version"].to_numpy(), rows["guard_weight"].to_numpy()] if terms.unit != "decision" else []
    bad = set(units[reason != ""].tolist())
    for column in members:
        at_first = column[np.maximum(first, 0)]
        bad |= set(units[(column != at_first) & (first >= 0)].tolist())
    spoilt = np.isin(units, np.array(sorted(bad), dtype=np.int64))
    reason[(reason == "") & spoilt] = "an episode or slate that is not whole"
    skipped = Counter(reason[(reason != "") & (first >= 0)].tolist())
    kept = np.flatnonzero(reason == "")
    if kept.size == 0:
        return _Found(_NOTHING, [], skipped, 0)
    found, first_kept, inexact = _measured(rows.take(kept), units[kept], state)
    names = [rows[name].take(pa.array(kept[first_kept])) for name in ("ts", "event_id", "slot")]
    order = list(zip(names[0].cast(pa.int64()).to_pylist(), names[1].to_pylist(), names[2].to_pylist(), strict=True))
    return _Found(found, order, skipped, inexact)


def _table(lake: Lake, version: int, state: GuardState, until: dict[int, int]) -> pa.Table:
    """Return the settled rows that may belong to units between the state's positions and `until`, in order of time."""
    assert state.terms is not None  # noqa: S101 - set with every attempt
    data = dataset("interactions", lake.table("interactions", version))
    parts: list[pa.Table] = []
    if EPISODES in until:
        around = round(state.terms.episode_s * 1e6)
        low, high = state.positions.get(EPISODES, 0) - around, until[EPISODES] + around
        between = (pc.field("ts") >= _time(max(0, low))) & (pc.field("ts") < _time(high))
        parts += [data.to_table(_COLUMNS, filter=place_of(state.loop, p) & between) for p in marks(lake, state.loop)]
    for number, end in sorted(until.items()):
        if number != EPISODES and end > state.positions.get(number, 0):
            between = (pc.field("offset") >= state.positions.get(number, 0)) & (pc.field("offset") < end)
            parts.append(data.to_table(_COLUMNS, filter=place_of(state.loop, number) & between))
    if not parts:
        return data.schema.empty_table()
    return pa.concat_tables(parts).sort_by([(name, "ascending") for name in ("ts", "event_id", "slot")])


def _units(rows: pa.Table, state: GuardState, until: dict[int, int]) -> tuple[Ints, Ints]:
    """Return [n] each row's unit, and [n] the row that its unit begins with; -1 for rows of no unit in question."""
    assert state.terms is not None  # noqa: S101 - set with every attempt
    n = len(rows)
    if state.terms.unit == "decision":
        return np.arange(n), np.arange(n)
    name = "event_id" if state.terms.unit == "slate" else "episode_id"
    keys = rows[name].fill_null("").to_numpy()
    _, begins, unit = np.unique(keys, return_index=True, return_inverse=True)
    unit, first = unit.astype(np.int64), begins[unit].astype(np.int64)
    if state.terms.unit == "episode":
        ts = rows["ts"].cast(pa.int64()).to_numpy()
        began = ts[first]
        mine = (began >= state.positions.get(EPISODES, 0)) & (began < until[EPISODES]) & (keys != "")
        first[~mine | (ts - began > state.terms.episode_s * 1e6)] = -1
        unit[first < 0] = n  # what comes after an episode's end spoils nothing
    return unit, first


def _measured(rows: pa.Table, unit: Ints, state: GuardState) -> tuple[Rows, Ints, int]:
    """Return the units of `rows`, the row that each begins with, and how many propensities are not their draw's."""
    assert state.terms is not None  # noqa: S101 - set with every attempt
    terms = state.terms
    index = rows["action_index"].to_numpy().astype(np.int64)
    propensity, rho = rows["propensity"].to_numpy(), rows["guard_weight"].to_numpy()
    baseline, candidate = _chosen(rows["pmf_baseline"], index), _chosen(rows["pmf_candidate"], index)
    reward = rows["reward"].to_numpy().astype(np.float64)
    scale = terms.episode_maximum if terms.unit == "episode" else terms.maximum - terms.minimum
    reward = np.maximum((reward - terms.minimum) / scale, 0.0)
    segment = _segments(rows, terms)
    if terms.unit == "decision":
        exact = np.abs(propensity - ((1.0 - rho) * baseline + rho * candidate)) <= EXACT * propensity
        found = Rows(reward, candidate / propensity, baseline / propensity, rho, segment)
        return found.take(exact), np.flatnonzero(exact), int((~exact).sum())
    _, first, number = np.unique(unit, return_index=True, return_inverse=True)
    ids = rows["event_id" if terms.unit == "slate" else "episode_id"].to_pylist()
    side = np.array([candidate_has(state.loop, ids[row], rho[row]) for row in first.tolist()])[number]
    exact = np.abs(propensity - np.where(side, candidate, baseline)) <= EXACT * propensity
    with np.errstate(divide="ignore"):
        logs = [_total(_log(column), number) for column in (baseline, candidate)]
    total = _total(reward, number)
    if terms.unit == "slate":
        total /= _total(np.ones(len(number)), number)
    w_candidate, w_baseline = trajectory_weights(logs[0], logs[1], rho[first])
    whole = _total((~exact).astype(np.float64), number) == 0
    order = np.argsort(first, kind="stable")
    order = order[whole[order]]
    found = Rows(total, w_candidate, w_baseline, rho[first], segment[first])
    return found.take(order), first[order], int((~exact).sum())


def _total(values: Floats, number: Ints) -> Floats:
    total = np.zeros(int(number.max()) + 1)
    np.add.at(total, number, values)
    return total


def _log(probability: Floats) -> Floats:
    # -inf would make nan of a sum with the other policy's; the least logarithm is far below any that counts.
    return np.maximum(np.log(probability), _LEAST_LOG)


def _segments(rows: pa.Table, terms: Terms) -> np.ndarray[tuple[int], np.dtype[np.str_]]:
    if not terms.segment:
        return np.full(len(rows), "")
    listed = set(terms.segments)
    found = [segment_of(msgspec.json.decode(text), terms.segment, listed) for text in rows["context"].to_pylist()]
    return np.array(found, dtype=np.str_)


def _us(value: pa.Scalar) -> int:
    return value.cast(pa.int64()).as_py()


def _time(us: int) -> pa.Scalar:
    return pa.scalar(us, pa.int64()).cast(TIME)


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
