"""Self-normalised inverse propensity scoring: sum w r / sum w (Swaminathan and Joachims 2015).

The variance is that of the ratio, ``sum w^2 (r - v)^2 / (sum w)^2``, from six sums: a constant reward has an interval
of width zero, which resampling of rows already divided by the mean weight does not give.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from scipy import stats

from decision.batch import Floats
from decision.ope.estimate import Estimate
from decision.ope.sums import MeanSums


@dataclass(frozen=True, slots=True)
class SnipsSums:
    """Sums of w, w r, w^2, w^2 r and w^2 r^2; `+` merges shards.

    Attributes:
        weights: sums of the weights themselves.
        wr: sum of w r.
        wwr: sum of w^2 r.
        wwrr: sum of w^2 r^2.
    """

    weights: MeanSums = field(default_factory=MeanSums)
    wr: float = 0.0
    wwr: float = 0.0
    wwrr: float = 0.0

    @staticmethod
    def of(weights: Floats, reward: Floats) -> SnipsSums:
        """Return the sums of [n] rows."""
        return SnipsSums(
            MeanSums.of(weights, weights),
            math.fsum(weights * reward),
            math.fsum(weights**2 * reward),
            math.fsum(weights**2 * reward**2),
        )

    def __add__(self, other: SnipsSums) -> SnipsSums:
        return SnipsSums(self.weights + other.weights, self.wr + other.wr, self.wwr + other.wwr, self.wwrr + other.wwrr)


def snips(sums: SnipsSums, *, level: float = 0.95) -> Estimate | None:
    """Return the estimate, or None when every weight is 0: the log has no support at all.

    The interval is the normal one of a ratio; below two rows it is infinite.
    """
    w = sums.weights
    if w.weight <= 0:
        return None
    value = sums.wr / w.weight
    variance = max(sums.wwrr - 2.0 * value * sums.wwr + value**2 * w.weight_square, 0.0) / w.weight**2
    # Cancellation leaves some 1e-17 of the largest term where the exact variance is 0.
    if variance <= 1e-14 * max(abs(sums.wwrr), value**2 * w.weight_square) / w.weight**2:
        variance = 0.0
    half = float(stats.norm.ppf(0.5 + level / 2.0)) * math.sqrt(variance) if w.n > 1 else math.inf
    return Estimate(value, value - half, value + half, level, w.n, w.ess, w.doubts())
