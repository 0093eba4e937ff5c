"""The multiplier C as a dual variable: raised while violations exceed their target, lowered while they do not.

A fixed C wastes accuracy or fairness; the full-information trade-off of regret and violations has the shape of online
optimisation with long-term constraints, for which a primal-dual multiplier is the standard answer (Mahdavi, Jin, Yang
2012, arXiv 1111.6082).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class DualRule:
    """How the multiplier moves.

    Attributes:
        target: violation rate aimed at, in (0, 1).
        step: change per unit of excess violation and round.
        low: smallest multiplier.
        high: largest multiplier.
    """

    target: float = 0.02
    step: float = 2.0
    low: float = 0.5
    high: float = 500.0


def after(cost: float, violation: float, rule: DualRule) -> float:
    """Return the multiplier after a round with violation rate `violation` in [0, 1]."""
    return float(np.clip(cost + rule.step * (violation - rule.target), rule.low, rule.high))
