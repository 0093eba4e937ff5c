"""Clopper-Pearson interval of importance-weighted rewards (Clopper and Pearson 1934).

A reward in [0, 1] with weight w, drawn at all with chance w / w_max, is a coin: of ``n / w_max`` throws
``sum w r / w_max`` came up. Exact where every weight is 0 or w_max and rewards are 0 or 1; as a rule for other weights
it is what the `estimators` package of VowpalWabbit uses.
"""

from __future__ import annotations

from dataclasses import replace

from scipy import special

from decision.errors import FieldError
from decision.ope.estimate import Estimate
from decision.ope.sums.means import MeanSums


def clopper_pearson(sums: MeanSums, *, largest: float, level: float = 0.95) -> Estimate:
    """Return the mean of weighted rewards with the interval.

    Args:
        sums: of terms ``w r`` with rewards in [0, 1].
        largest: w_max, the largest weight possible, 1 or more.
        level: coverage, in (0, 1).

    Raises:
        FieldError: `largest` is below 1 or below a weight that was seen.
        SupportError: there are no rows.
    """
    if not largest >= max(1.0, sums.support.largest):
        raise FieldError("largest", wanted=f"{max(1.0, sums.support.largest):g} or more", got=largest)
    found = sums.estimate(level)
    trials = sums.n / largest
    hits = min(max(found.value * trials, 0.0), trials)
    alpha = 1.0 - level
    low = float(special.betaincinv(hits, trials - hits + 1.0, alpha / 2.0)) if hits > 0 else 0.0
    high = float(special.betaincinv(hits + 1.0, trials - hits, 1.0 - alpha / 2.0)) if hits < trials else 1.0
    return replace(found, low=low, high=high)
