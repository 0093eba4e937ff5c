"""EpsMix: one coin per episode between the optimistic policy and the baseline.

The coin's weight is the largest for which the expected return over the coin keeps its lower bound at the threshold
(Li, Huang, Shen, Yang 2023, arXiv 2306.06265). With a horizon of one it is StepMix, and the guard's one formula.
"""

from __future__ import annotations

import numpy as np

from decision.batch import Floats
from decision.conservative.tabular.confidence import Model, evaluate, optimistic


def weight(lower_candidate: Floats, lower_baseline: Floats, gamma: Floats) -> Floats:
    """Return the candidate's largest safe share in [0, 1], elementwise.

    Args:
        lower_candidate: [n] lower bounds on the candidate's value.
        lower_baseline: [n] lower bounds on the baseline's value.
        gamma: [n] threshold.
    """
    gap = lower_baseline - lower_candidate
    mixed = (lower_baseline - gamma) / np.where(gap > 0, gap, 1.0)
    share = np.where(lower_candidate >= gamma, 1.0, np.where(lower_baseline < gamma, 0.0, mixed))
    return np.clip(share, 0.0, 1.0)


def plan(
    model: Model, baseline: Floats, gamma: Floats, *, baseline_value: Floats | None = None
) -> tuple[Floats, Floats]:
    """Return the optimistic policy [n, H, S, A] and the [n] probability with which an episode follows it.

    Args:
        model: empirical model and bonus constants.
        baseline: [n, H, S, A] the safe policy.
        gamma: [n] threshold on the expected return of every episode, over the coin.
        baseline_value: [n] the baseline's value, where it is known exactly.
    """
    aim = optimistic(model)[0]
    lower_aim, _ = evaluate(model, aim)
    lower_baseline, _ = evaluate(model, baseline)
    if baseline_value is not None:
        lower_baseline = np.maximum(lower_baseline, baseline_value)
    return aim, weight(lower_aim, lower_baseline, gamma)
