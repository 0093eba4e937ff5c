"""From outcomes to a reward, the aggregations, and from rewards to the range that they lie in.

There is one implementation, `aggregate_groups`, on flat arrays; `aggregate` is a single group. No aggregation starts
from a number: `max` of negative values is negative, and a set without values has no aggregate, so that the caller
and not this file decides what stands for nothing.

A range that nobody gave is learned. It has no unit, and it moves with the rewards: multiplied or shifted rewards have
the multiplied or shifted range.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from decision.batch import Floats, Ints
from decision.errors import FieldError
from decision.options import Range

Aggregation = Literal["sum", "earliest", "latest", "min", "max", "mean"]
AGGREGATIONS: tuple[str, ...] = get_args(Aggregation)
_DOWN = 2.0**-64

LARGEST = 1e15
"""Rewards whose range nobody gave are cut to this and its negative."""
REACH = 10.0
"""A learned range reaches this many times as far from the median as all but the furthest rewards lie from it."""
_KEPT = 100_000
_FURTHEST = 0.01


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


class Rewards:
    """Rewards that a range is learned from, in any order and cut into any chunks.

    The smallest and the largest reward are the range, but for rewards that stand alone: one sale of a billion must not
    make all others the same. Of the rewards that differ from the median, the furthest hundredth (of few rewards, one
    in the root of their number) may lie `REACH` times as far from it as the rest.
    """

    def __init__(self) -> None:
        self._low, self._high = np.inf, -np.inf
        self._uniform, self._reward = np.zeros(0), np.zeros(0)

    def add(self, reward: Floats, uniform: Floats) -> None:
        """Add n rewards.

        Args:
            reward: [n] finite.
            uniform: [n] in [0, 1), a number that belongs to each: the smallest 100,000 say where most rewards lie.
        """
        if not reward.size:
            return
        self._low, self._high = min(self._low, float(reward.min())), max(self._high, float(reward.max()))
        self._uniform = np.concatenate((self._uniform, uniform))
        self._reward = np.concatenate((self._reward, reward))
        if self._uniform.size > 2 * _KEPT:
            self._thin()

    def merge(self, other: Rewards) -> None:
        """Add the rewards that `other` was told of."""
        self.add(other._reward, other._uniform)
        self._low, self._high = min(self._low, other._low), max(self._high, other._high)

    def _thin(self) -> None:
        if self._uniform.size > _KEPT:
            last = np.partition(self._uniform, _KEPT - 1)[_KEPT - 1]
            ties = np.flatnonzero(self._uniform == last)
            ties = ties[np.argsort(self._reward[ties])]  # whichever came first: the same are kept
            below = np.flatnonzero(self._uniform < last)
            kept = np.concatenate((below, ties[: _KEPT - below.size]))
            self._uniform, self._reward = self._uniform[kept], self._reward[kept]

    def range(self, minimum: float | None = None, maximum: float | None = None) -> Range:
        """Return the range, between the bounds that are given.

        Without a reward, or where all are the same, the range reaches from 0 to it, and [0, 1] where it is 0.

        Args:
            minimum: the smallest possible reward, if it is known.
            maximum: the largest.
        """
        low, high = self._ends()
        low, high = low if minimum is None else minimum, high if maximum is None else maximum
        if low < high:
            return Range(low=low, high=high)
        if minimum is None and maximum is None:
            low, high = min(low, 0.0), max(high, 0.0)
            return Range(low=low, high=high if low < high else 1.0)
        if minimum is None:
            return Range(low=high - (abs(high) or 1.0), high=high)
        return Range(low=low, high=low + (abs(low) or 1.0))

    def _ends(self) -> tuple[float, float]:
        if not self._reward.size:
            return 0.0, 0.0
        self._thin()
        middle = float(np.quantile(self._reward, 0.5, method="inverted_cdf"))
        distance = np.abs(self._reward - middle)
        distance = distance[distance > 0]
        if not distance.size:
            return self._low, self._high
        share = 1.0 - max(_FURTHEST, distance.size**-0.5)
        reach = REACH * float(np.quantile(distance, share, method="inverted_cdf"))
        return max(self._low, middle - reach), min(self._high, middle + reach)
