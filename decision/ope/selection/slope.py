"""SLOPE: the hyper-parameter whose bias cannot be told from 0 (Su, Srinath, Krishnamurthy 2020, arXiv 2002.07729).

Estimates are ordered from the widest interval to the narrowest, which for clipping and shrinkage is from the least
bias to the most. One is kept while its interval meets those of all before it; the last one kept wins.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from decision.errors import FieldError
from decision.ope.estimate import Estimate

_REACH = math.sqrt(6.0) - 1.0  # the paper's constant for biases that grow and widths that shrink


def slope(estimates: Mapping[float, Estimate]) -> float:
    """Return the hyper-parameter chosen.

    Args:
        estimates: estimates at the same level by hyper-parameter, one or more.

    Raises:
        FieldError: there is none.
    """
    if not estimates:
        raise FieldError("estimates", wanted="one estimate or more", got=0)
    # Of equal widths the larger parameter (less clipping) comes first.
    order = sorted(estimates, key=lambda name: (-_half(estimates[name]), -name))
    chosen = order[0]
    for number, name in enumerate(order):
        here = estimates[name]
        for other in order[:number]:
            there = estimates[other]
            if abs(here.value - there.value) > _half(here) + _REACH * _half(there):
                return chosen
        chosen = name
    return chosen


def _half(estimate: Estimate) -> float:
    return (estimate.high - estimate.low) / 2.0
