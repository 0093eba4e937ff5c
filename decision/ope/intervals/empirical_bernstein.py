"""Empirical Bernstein interval: no normality, only a bound of the terms.

Maurer and Pontil 2009 (arXiv 0907.3740, theorem 4), for both sides:
``mean -+ sqrt(2 V ln(4/alpha) / n) + 7 B ln(4/alpha) / (3 (n - 1))`` with V the sample variance and B the width of the
range that every term is known to lie in. For weighted rewards B is the largest weight *possible* times the range of
rewards, never the largest one seen: a bound taken from the sample is no bound.
"""

from __future__ import annotations

import math
from dataclasses import replace

from decision.errors import FieldError
from decision.ope.estimate import Estimate
from decision.ope.sums.means import MeanSums


def empirical_bernstein(sums: MeanSums, *, low: float, high: float, level: float = 0.95) -> Estimate:
    """Return the mean of the terms with the interval, cut to the range that the terms lie in.

    Args:
        sums: of the terms.
        low: no term can be below it.
        high: no term can be above it.
        level: coverage, in (0, 1).

    Raises:
        FieldError: the range is empty, or a level is outside (0, 1).
        SupportError: there are no rows.
    """
    if not low < high:
        raise FieldError("low", wanted=f"below high = {high}", got=low)
    if not 0 < level < 1:
        raise FieldError("level", wanted="a number in (0, 1)", got=level)
    found = sums.estimate(level)
    if sums.n < 2:
        return replace(found, low=low, high=high)
    logarithm = math.log(4.0 / (1.0 - level))
    half = math.sqrt(2.0 * logarithm) * sums.error + 7.0 * (high - low) * logarithm / (3.0 * (sums.n - 1))
    return replace(found, low=max(found.value - half, low), high=min(found.value + half, high))
