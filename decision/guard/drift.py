"""The drift leg: an e-detector on the promise at the weight being served.

Per batch of matured decisions, ``E_j = prod(1 - l_j * Y)`` with ``Y = r * (1 - (1 - alpha) * w_b)`` is an e-value
against "the served mixture keeps its promise"; the detector runs ``M_j <- (M_j + 1) * E_j`` and alarms when the mean
over bets reaches the threshold, so false alarms come at most once in that many batches on average (Shin, Ramdas and
Rinaldo 2023, arXiv 2203.03532). Unlike the ladder it forgets: a candidate that was good for months and turns bad is
caught from where it turned.
"""

from __future__ import annotations

import numpy as np

from decision.batch import Floats
from decision.guard.rules import GuardRules


def no_drift(rules: GuardRules) -> Floats:
    """Return the detector's state [J] before any batch: log M = -inf."""
    return np.full(len(rules.drift_bets), -np.inf)


def after_batch(state: Floats, reward: Floats, weight_baseline: Floats, rules: GuardRules) -> Floats:
    """Return the state [J] after one batch.

    Args:
        state: [J] log M.
        reward: [n] matured rewards of the batch, not negative, in decision order.
        weight_baseline: [n] the baseline's over the served probability of the chosen action.
        rules: the guard's rules.
    """
    won = reward > 0
    r = np.minimum(reward[won], rules.reward_max) / rules.reward_max
    y = r * (1.0 - (1.0 - rules.alpha) * weight_baseline[won])
    log_e = np.log1p(-np.array(rules.drift_bets)[:, None] * y[None, :]).sum(1)
    return np.logaddexp(state, 0.0) + log_e


def has_drifted(state: Floats, rules: GuardRules) -> bool:
    """Return whether the detector alarms."""
    top = float(state.max())
    if not np.isfinite(top):
        return False
    return top + float(np.log(np.exp(state - top).mean())) >= np.log(rules.drift_threshold)
