"""From outcomes to a reward: the aggregations, one decision at a time or grouped in one pass.

There is one implementation, `aggregate_groups`, on flat arrays; `aggregate` is a single group. No aggregation starts
from a number: `max` of negative values is negative, and a set without values has no aggregate, so that the caller
and not this file decides what stands for nothing.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from decision.batch import Floats, Ints
from decision.errors import FieldError

Aggregation = Literal["sum", "earliest", "latest", "min", "max", "mean"]
AGGREGATIONS: tuple[str, ...] = get_args(Aggregation)
_DOWN = 2.0**-64


def aggregate(values: Floats, order_ts: Ints, kind: Aggregation) -> float | None:
    """Return the aggregate of `values`, None when there are none.

    Args:
        values: [m] finite.
        order_ts: [m] when each happened; ties are in the order given.
        kind: how they become one number.

    Raises:
        FieldError: `kind` is no aggregation, or the lengths differ.
    """
    if len(values) == 0:
        _check(values, order_ts, kind)
        return None
    group = np.zeros(len(values), dtype=np.int64)
    return float(aggregate_groups(values, order_ts, group, 1, kind)[0])


def aggregate_groups(values: Floats, order_ts: Ints, groups: Ints, n: int, kind: Aggregation) -> Floats:
    """Return the aggregate of each group, NaN for a group without values.

    The result does not depend on the order of the rows, except that the order given breaks ties in `order_ts`.

    Args:
        values: [m] finite.
        order_ts: [m] when each happened.
        groups: [m] group of each value, in [0, n).
        n: number of groups.
        kind: how a group's values become one number. A sum that passes the range of doubles is infinite.

    Returns:
        [n].

    Raises:
        FieldError: `kind` is no aggregation, or the lengths differ.
    """
    _check(values, order_ts, kind)
    out = np.full(n, np.nan)
    if len(values) == 0:
        return out
    # sorted by group, then time, then the order given: every reduction below runs over one stretch per group
    order = np.lexsort((order_ts, groups))
    sorted_values, sorted_groups = values[order], groups[order]
    starts = np.flatnonzero(np.r_[True, sorted_groups[1:] != sorted_groups[:-1]])
    present = sorted_groups[starts]
    if kind == "sum":
        out[present] = _sums(sorted_values, starts, np.ones(len(starts)))
    elif kind == "mean":
        out[present] = _sums(sorted_values, starts, np.diff(np.r_[starts, len(order)]).astype(np.float64))
    elif kind == "min":
        out[present] = np.minimum.reduceat(sorted_values, starts)
    elif kind == "max":
        out[present] = np.maximum.reduceat(sorted_values, starts)
    elif kind == "earliest":
        out[present] = sorted_values[starts]
    else:
        out[present] = sorted_values[np.r_[starts[1:], len(order)] - 1]
    return out


def _sums(values: Floats, starts: Ints, divisor: Floats) -> Floats:
    # Partial sums beyond the range of doubles could meet as inf - inf: those are added again at a smaller scale.
    with np.errstate(over="ignore", invalid="ignore"):
        sums = np.add.reduceat(values, starts)
        if np.isfinite(sums).all():
            return sums / divisor
        scaled = np.add.reduceat(values * _DOWN, starts) / divisor
        return np.where(np.isfinite(sums), sums / divisor, scaled / _DOWN)


def _check(values: Floats, order_ts: Ints, kind: str) -> None:
    if kind not in AGGREGATIONS:
        raise FieldError.choice("aggregation", list(AGGREGATIONS), kind)
    if len(order_ts) != len(values):
        raise FieldError("order_ts", wanted=f"{len(values)} times, one per value", got=len(order_ts))
