"""Switch-DR: the reward model alone where the weight is large (Wang, Agarwal, Dudik 2017, arXiv 1612.01205, eq. 7)."""

from __future__ import annotations

import numpy as np

from decision.batch import Floats
from decision.ope.estimators.registry import Tuned
from decision.ope.rows import Rows, above_zero


def switch_terms(rows: Rows, tau: float) -> Floats:
    """Return [n] terms ``sum_a pi(a) q(a) + w 1{w <= tau} (r - q)``.

    Raises:
        FieldError: `tau` is not above 0.
    """
    kept = np.where(rows.weight <= above_zero(tau, "tau"), rows.weight, 0.0)
    return rows.direct + kept * rows.residual


ESTIMATOR = Tuned(switch_terms, needs=("model",))
