"""Marginalised IPS: weights of groups of actions, for sets that are too large for a weight per action.

Where the reward depends on an action only through its group e(a), ``w(e) = pi(e) / p(e)`` has a far smaller variance
and the estimate stays unbiased (Saito and Joachims 2022, arXiv 2202.06317).
"""

from __future__ import annotations

import numpy as np

from decision.batch import Floats
from decision.ope.estimators.registry import Mean
from decision.ope.rows import Rows


def group_weights(rows: Rows) -> Floats:
    """Return [n] weights: evaluation over logged probability of the drawn action's group.

    Raises:
        FieldError: actions come in no groups, or a logging distribution is not known.
    """
    logging, code = rows.whole_logging(), rows.groups()
    row = np.repeat(np.arange(len(rows)), np.diff(rows.offsets))
    same = code == code[rows.chosen][row]
    n = len(rows)
    over = np.bincount(row[same], weights=rows.target[same], minlength=n)
    under = np.bincount(row[same], weights=logging[same], minlength=n)
    return over / under


ESTIMATOR = Mean(
    lambda rows, weights: weights * rows.reward,
    weights=group_weights,
    needs=("grouped", "logging"),
)
