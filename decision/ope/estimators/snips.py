"""Self-normalised inverse propensity scoring: sum w r / sum w (Swaminathan and Joachims 2015).

The variance is that of the ratio, ``sum w^2 (r - v)^2 / (sum w)^2``: a constant reward has an interval of width zero,
which resampling of rows already divided by the mean weight does not give.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from decision.batch import Floats
from decision.ope.estimate import Estimate
from decision.ope.estimators.registry import OwnSums
from decision.ope.sums.moments import Moments


@dataclass(frozen=True, slots=True)
class SnipsSums:
    """Sums of w and w r and of their products; `+` merges shards.

    Attributes:
        moments: of the columns w and w r.
    """

    moments: Moments

    @staticmethod
    def of(weights: Floats, reward: Floats, counts: Floats | None = None) -> SnipsSums:
        """Return the sums of [n] rows; `counts` as in `decision.ope.sums.means.Support.of`."""
        return SnipsSums(Moments.of([weights, weights * reward], weights, counts))

    def __add__(self, other: SnipsSums) -> SnipsSums:
        return SnipsSums(self.moments + other.moments)


def snips(sums: SnipsSums, *, level: float = 0.95) -> Estimate | None:
    """Return the estimate, or None when every weight is 0: the log has no support at all.

    The interval is the normal one of a ratio; below two rows it is infinite.
    """
    weight, weighted = sums.moments.totals
    if weight <= 0:
        return None
    value = weighted / weight
    return sums.moments.estimate(float(value), np.array([-value, 1.0]) / weight, level)


ESTIMATOR = OwnSums(
    lambda rows, low, high: SnipsSums.of(rows.weight, rows.reward, rows.counts),
    snips,
    replicate=lambda drawn: drawn["ips"] / drawn["weight"],
)
