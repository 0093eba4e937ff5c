"""Clipped inverse propensity scoring: the mean of min(w, tau) r (Ionides 2008, "Truncated importance sampling")."""

from __future__ import annotations

import numpy as np

from decision.batch import Floats
from decision.ope.estimators.registry import Tuned
from decision.ope.rows import Rows, above_zero


def clipped_terms(rows: Rows, tau: float) -> Floats:
    """Return [n] terms ``min(w, tau) r``; biased towards 0 by the rewards of what is clipped.

    Raises:
        FieldError: `tau` is not above 0.
    """
    return np.minimum(rows.weight, above_zero(tau, "tau")) * rows.reward


ESTIMATOR = Tuned(clipped_terms, biased=True)
