"""Weights of groups of actions instead of single actions, for sets that are too large for a weight per action.

Marginalised IPS (Saito and Joachims 2022, arXiv 2202.06317): where the reward depends on an action only through its
group e(a), ``w(e) = pi(e) / p(e)`` has a far smaller variance and the estimate stays unbiased. OffCEM (Saito, Ren,
Joachims 2023, arXiv 2305.08062) drops that assumption: the group's weight corrects a reward model, which has to be
right about differences within a group only.
"""

from __future__ import annotations

import numpy as np

from decision.batch import Floats, Ints
from decision.errors import FieldError
from decision.ope.rows import Rows
from decision.ope.sums.means import MeanSums


def group_weights(rows: Rows, code: Ints) -> Floats:
    """Return [n] weights: evaluation over logged probability of the drawn action's group.

    Args:
        rows: the log, with its whole logging distributions.
        code: [m] int64 group of each offered action.

    Raises:
        FieldError: shapes differ, or a logging distribution is not known.
    """
    logging = rows.whole_logging()
    if code.shape != rows.target.shape:
        raise FieldError("code", wanted=f"[{len(rows.target)}] groups", got=code.shape)
    row = np.repeat(np.arange(len(rows)), np.diff(rows.offsets))
    same = code == code[rows.chosen][row]
    n = len(rows)
    over = np.bincount(row[same], weights=rows.target[same], minlength=n)
    under = np.bincount(row[same], weights=logging[same], minlength=n)
    return over / under


def mips_terms(rows: Rows, code: Ints) -> Floats:
    """Return [n] terms ``w(e) r``; arguments as `group_weights`."""
    return group_weights(rows, code) * rows.reward


def mips_sums(rows: Rows, code: Ints) -> MeanSums:
    """Return the mergeable sums of marginalised IPS; arguments as `group_weights`."""
    weights = group_weights(rows, code)
    return MeanSums.of(weights * rows.reward, weights, rows.counts)


def offcem_terms(rows: Rows, code: Ints) -> Floats:
    """Return [n] terms ``sum_a pi(a) q(a) + w(e) (r - q)``; arguments as `group_weights`."""
    return rows.direct + group_weights(rows, code) * rows.residual


def offcem_sums(rows: Rows, code: Ints) -> MeanSums:
    """Return the mergeable sums of OffCEM; arguments as `group_weights`.

    Raises:
        FieldError: there is no reward model, too.
    """
    rows.model()
    weights = group_weights(rows, code)
    return MeanSums.of(rows.direct + weights * rows.residual, weights, rows.counts)
