"""How many decisions an estimate's rewards come from: where they are few, no interval of a sample's spread holds.

A decision that nothing followed has the reward of most others. What an estimate knows of the rest it has from the rarer
side of the rewards, counted as weights are (Kong 1992): ``(sum w d)^2 / sum (w d)^2`` with d the distance from the
smallest reward possible, and from the largest; the smaller of the two. The count has no unit, and does not change when
rewards are multiplied or shifted together with their range.
"""

from __future__ import annotations

from decision.ope.estimators.snips import SnipsSums
from decision.ope.sums.exact import rounded

FEWEST = 10.0
"""Decisions below which an interval needs the bounds of the rewards."""


def rewarded(sums: SnipsSums, *, low: float, high: float) -> float:
    """Return the effective number of decisions on the rarer side of the rewards; 0 where there are none.

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
