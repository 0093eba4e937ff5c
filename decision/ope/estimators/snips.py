"""Self-normalised inverse propensity scoring: sum w r / sum w (Swaminathan and Joachims 2015).

The variance is that of the ratio, ``sum w^2 (r - v)^2 / (sum w)^2``: a constant reward has an interval of width zero,
which resampling of rows already divided by the mean weight does not give.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from decision.batch import Floats, Ints
from decision.ope.estimate import Estimate
from decision.ope.estimators.registry import OwnSums
from decision.ope.sums.exact import Exact, rounded
from decision.ope.sums.means import cube_columns, merged_cubes
from decision.ope.sums.moments import Moments
from decision.ope.sums.skewness import skewed, skewness_of

FEWEST = 10.0
"""Rewarded decisions below which an interval needs the bounds of the rewards."""


@dataclass(frozen=True, slots=True)
class SnipsSums:
    """Sums of w and w r and of their products; `+` merges shards.

    Attributes:
        moments: of the columns w and w r.
        cubes: sums of w^3, w^3 r, w^3 r^2 and w^3 r^3; empty where nobody asks for the skewness.
    """

    moments: Moments
    cubes: tuple[Exact, ...] = ()

    @staticmethod
    def of(
        weights: Floats,
        reward: Floats,
        counts: Floats | None = None,
        *,
        cubes: bool = False,
        clusters: Ints | None = None,
    ) -> SnipsSums:
        """Return the sums of [n] rows; `counts` and `clusters` as in `decision.ope.sums.means`."""
        moments = Moments.of([weights, weights * reward], weights, counts, clusters)
        if not cubes:
            return SnipsSums(moments)
        return SnipsSums(moments, cube_columns(reward, weights if counts is None else counts * weights))

    def __add__(self, other: SnipsSums) -> SnipsSums:
        rows = self.moments.support.n, other.moments.support.n
        cubes = merged_cubes((rows[0], self.cubes), (rows[1], other.cubes))
        return SnipsSums(self.moments + other.moments, cubes)


def snips(sums: SnipsSums, *, level: float = 0.95) -> Estimate | None:
    """Return the estimate, or None when every weight is 0: the log has no support at all.

    The interval is the normal one of a ratio, wider on the side where its terms are skewed if there are `cubes`; below
    two rows it is infinite.
    """
    weight, weighted = sums.moments.totals
    if weight <= 0:
        return None
    value = weighted / weight
    gradient = np.array([-value, 1.0]) / weight
    found = sums.moments.estimate(float(value), gradient, level)
    variance = sums.moments.variance(gradient)
    if found.n < 2 or not sums.cubes or not variance > 0.0:
        return found
    skewness = skewness_of(float(value), sums.cubes, variance * float(weight) ** 2)
    low, high = skewed(float(value), math.sqrt(variance), skewness, n=found.n, level=level)
    return replace(found, low=low, high=high)


def rewarded(sums: SnipsSums, *, low: float, high: float) -> float:
    """Return how many decisions the rewards come from, those on the rarer side; 0 where there are none.

    A decision that nothing followed has the reward of most others: what an estimate knows, it has from the rest. They
    are counted as weights are (Kong 1992), ``(sum w d)^2 / sum (w d)^2`` with d the distance from the smallest reward
    possible, and from the largest; the smaller of the two. It does not change when rewards are multiplied or shifted
    together with their range.

    Args:
        sums: of the rows.
        low: smallest reward possible.
        high: largest reward possible.
    """
    weight, total = sums.moments.totals
    square, cross, product = (rounded(part) for part in sums.moments.second)
    found: list[float] = []
    for sign, end in ((1.0, low), (-1.0, high)):
        distance = sign * (total - end * weight)
        spread = product - 2.0 * end * cross + end**2 * square
        largest = max(product, end**2 * square)
        # Cancellation leaves less than rounding can tell where every reward is at this end.
        found.append(float(distance**2 / spread) if spread > 1e-12 * largest and distance > 0 else 0.0)
    return min(found)


ESTIMATOR = OwnSums(
    # Without a reward model it is read first.
    lambda rows, low, high: SnipsSums.of(rows.weight, rows.reward, rows.counts, cubes=rows.expected is None),
    snips,
    replicate=lambda drawn: drawn["ips"] / drawn["weight"],
)
