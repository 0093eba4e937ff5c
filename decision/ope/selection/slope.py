"""SLOPE: the hyper-parameter whose bias cannot be told from 0 (Su, Srinath, Krishnamurthy 2020, arXiv 2002.07729).

Candidates are ordered from the widest interval to the narrowest, which for clipping and shrinkage is from the least
bias to the most. A candidate is kept while its interval meets those of all before it; the last one kept wins.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from decision.errors import FieldError
from decision.ope.estimate import Estimate

_REACH = math.sqrt(6.0) - 1.0  # the paper's constant for biases that grow and widths that shrink


def slope(candidates: Mapping[float, Estimate]) -> float:
    """Return the hyper-parameter chosen.

    Args:
        candidates: estimates at the same level by hyper-parameter, one or more.

    Raises:
        FieldError: there is none.
    """
    if not candidates:
        raise FieldError("candidates", wanted="one estimate or more", got=0)
    # Of equal widths the larger parameter (less clipping) comes first.
    order = sorted(candidates, key=lambda name: (-_half(candidates[name]), -name))
    chosen = order[0]
    for number, name in enumerate(order):
        here = candidates[name]
        for other in order[:number]:
            there = candidates[other]
            if abs(here.value - there.value) > _half(here) + _REACH * _half(there):
                return chosen
        chosen = name
    return chosen


def _half(estimate: Estimate) -> float:
    return (estimate.high - estimate.low) / 2.0
