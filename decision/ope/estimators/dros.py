"""Doubly robust with optimistic shrinkage of the weights.

Su, Dimakopoulou, Krishnamurthy, Dudik 2020 (arXiv 1907.09623, section 4.3):
``w' = lam w / (w^2 + lam)``: small weights stay, large ones shrink towards 0 and leave the reward model alone.
"""

from __future__ import annotations

from decision.batch import Floats
from decision.ope.estimators.registry import Tuned
from decision.ope.rows import Rows, above_zero


def shrinkage_terms(rows: Rows, lam: float) -> Floats:
    """Return [n] terms ``sum_a pi(a) q(a) + w' (r - q)``.

    Raises:
        FieldError: `lam` is not above 0.
    """
    above_zero(lam, "lam")
    # Divided through by lam, so that no square of a weight can overflow before it is needed.
    return rows.direct + rows.weight / (rows.weight * (rows.weight / lam) + 1.0) * rows.residual


# lam = tau^2 shrinks a weight of tau to its half.
ESTIMATOR = Tuned(lambda rows, tau: shrinkage_terms(rows, tau**2), needs=("model",))
