"""More robust doubly robust: DR whose reward model is fitted to the variance of the estimate.

Farajtabar, Chow, Ghavamzadeh 2018 (arXiv 1802.03493, section 4). For a policy that decides without chance, the variance
that a model's errors add on a context is ``(1 / p - 1) (r - q)^2``; a row was drawn with probability p, so fitting by
least squares with row weights ``pi (1 - p) / p^2`` makes that variance least. The estimate is DR's with that model.
"""

from __future__ import annotations

from decision.batch import Floats
from decision.ope.estimators.registry import Mean
from decision.ope.rows import Rows
from decision.ragged import group_sum


def mrdr_row_weights(rows: Rows) -> Floats:
    """Return [n] weights of the squared errors, 0 where the policy would not have drawn the action."""
    return rows.target[rows.chosen] * (1.0 - rows.propensity) / rows.propensity**2


def mrdr_terms(rows: Rows, weights: Floats) -> Floats:
    """Return [n] terms ``sum_a pi(a) q(a) + w (r - q)`` with the model q that was fitted for it.

    Raises:
        FieldError: there is none.
    """
    expected = rows.robust_model()
    return group_sum(rows.target * expected, rows.offsets) + weights * (rows.reward - expected[rows.chosen])


ESTIMATOR = Mean(mrdr_terms, needs=("robust",))
