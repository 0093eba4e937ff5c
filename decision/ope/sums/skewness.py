"""Interval of a mean whose terms are skewed: Student's where they are not, wider on the long side where they are.

A mean of n terms of skewness g errs towards its short tail: what is missing is a rare large term. Hall 1992 ("On the
removal of skewness by transformation", after Johnson 1978) transforms Student's ratio T by the cubic

    h(T) = T + k T^2 / 3 + k^2 T^3 / 27 + k / 6,      k = g / sqrt(n),

which is nearly normal and has an inverse in closed form. As it would also draw the other end in, each end is the wider
one of Hall's and Student's. A sample's skewness is too small where tails are heavy, since it cannot pass sqrt(n), and
so k is taken a quarter larger: what simulated clicks and revenue need (infra/docs/evaluation.md).
"""

from __future__ import annotations

import math

import numpy as np
from scipy import special

from decision.ope.sums.exact import Exact, rounded

INFLATED = 1.25
"""Factor on the sample's skewness."""
_NONE = 1e-9


def skewed(value: float, error: float, skewness: float, *, n: float, level: float) -> tuple[float, float]:
    """Return the interval of a mean.

    Args:
        value: the mean.
        error: its standard error.
        skewness: k, that of the mean: sum (t - mean)^3 over (sum (t - mean)^2)^1.5.
        n: independent terms, more than 1; of terms of unequal size, how many of equal size they count for.
        level: coverage, in (0, 1).
    """
    z = float(special.stdtrit(n - 1, 0.5 + level / 2.0))
    k = INFLATED * skewness
    if not abs(k) > _NONE:
        return value - z * error, value + z * error
    return value - error * max(z, _inverse(z, k)), value - error * min(-z, _inverse(-z, k))


def _inverse(x: float, k: float) -> float:
    """Return T where h(T) = x."""
    return 3.0 / k * (float(np.cbrt(1.0 + k * (x - k / 6.0))) - 1.0)


def skewness_of(value: float, powers: tuple[Exact, ...], square: float) -> float:
    """Return the skewness of a mean, 0 where its terms have no spread or cancellation leaves nothing to tell.

    Args:
        value: the mean, or any ratio of sums that is linearised like one.
        powers: sums of c^3, c^3 t, c^3 t^2 and c^3 t^3, with counts c or weights.
        square: sum of c^2 (t - value)^2.
    """
    if not powers or not square > 0.0:
        return 0.0
    one, first, second, third = (rounded(total) for total in powers)
    parts = (third, -3.0 * value * second, 3.0 * value**2 * first, -(value**3) * one)
    cube = math.fsum(parts)
    return cube / square**1.5 if abs(cube) > 1e-12 * max(map(abs, parts)) else 0.0
