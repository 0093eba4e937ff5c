"""Continuous adaptive blending of model and weights (Su, Wang, Santacatterina, Joachims 2019, arXiv 1811.02672).

``beta(a) = min(1, M p(a) / pi(a))`` is the share of an action that its weight answers for; the reward model answers for
the rest. On the drawn action ``beta w = min(w, M)``.
"""

from __future__ import annotations

import numpy as np

from decision.batch import Floats
from decision.ope.estimators.registry import Tuned
from decision.ope.rows import Rows, above_zero
from decision.ragged import group_sum


def cab_terms(rows: Rows, limit: float) -> Floats:
    """Return [n] terms ``sum_a max(pi(a) - M p(a), 0) q(a) + min(w, M) r``.

    Args:
        rows: the log, with its whole logging distributions and a reward model.
        limit: M, the largest weight.

    Raises:
        FieldError: `limit` is not above 0, there is no reward model, or a logging distribution is not known.
    """
    above_zero(limit, "limit")
    # pi (1 - beta) = max(pi - M p, 0): no division by probabilities that may be 0.
    rest = rows.target - limit * rows.whole_logging()
    model, weighted = rows.model(), np.minimum(rows.weight, limit) * rows.reward
    if not len(rows) or float(rest.max()) <= 0.0:  # no weight is larger, and nothing is left to the model
        return weighted
    return group_sum(np.maximum(rest, 0.0, out=rest) * model, rows.offsets) + weighted


ESTIMATOR = Tuned(cab_terms, needs=("model", "logging"))
