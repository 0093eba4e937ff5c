"""The best fair policy in hindsight: a linear program over mixtures of hypotheses, by cutting planes.

Minimise the error of the mixture subject to no ordered pair of any round having a gap above its panel's threshold less
eps. There are T * k * (k - 1) constraints and few of them bind, so the worst are added until none is violated.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import numpy as np
from scipy.optimize import linprog

from decision.batch import Floats
from decision.errors import SupportError


class BestFair(NamedTuple):
    """The comparator.

    Attributes:
        weights: [N] mixture.
        error: its mean error per person.
        constraints: constraints that were needed.
    """

    weights: Floats
    error: float
    constraints: int


def best_fair(
    predictions: Floats, labels: Floats, thresholds: Floats, *, eps: float, added: int = 600, rounds: int = 50
) -> BestFair:
    """Return the mixture of least error without a violation.

    Args:
        predictions: [T, k, N] each hypothesis' probability of approval.
        labels: [T, k] true outcomes in {0, 1}.
        thresholds: [T, k, k] panel thresholds on the gap of the ordered pair (i, j), see `panel.threshold`.
        eps: how much stricter than the panel the comparator is held, >= 0.
        added: constraints added per iteration.
        rounds: iterations at most.

    Raises:
        SupportError: no mixture is free of violations (constant hypotheses always are), or the solver gave up.
    """
    steps, people, hypotheses = predictions.shape
    flat = predictions.reshape(-1, hypotheses)
    truth = labels.reshape(-1, 1)
    errors = np.abs(flat - truth).mean(0)
    rows: Floats = np.zeros((0, hypotheses))
    limits: Floats = np.zeros(0)
    seen: set[int] = set()
    for _ in range(rounds):
        solved = cast(
            "Any",
            linprog(
                errors,
                A_ub=rows if rows.size else None,
                b_ub=limits if rows.size else None,
                A_eq=np.ones((1, hypotheses)),
                b_eq=[1.0],
                bounds=(0, None),
                method="highs",
            ),
        )
        if solved.status != 0:
            raise SupportError(f"no mixture of the hypotheses is free of violations: {solved.message}")
        weights = np.asarray(solved.x, dtype=np.float64)
        probability = (flat @ weights).reshape(steps, people)
        excess = probability[:, :, None] - probability[:, None, :] - (thresholds - eps)
        excess[:, np.arange(people), np.arange(people)] = -np.inf
        worst = np.argsort(excess.ravel())[::-1][:added]
        worst = worst[excess.ravel()[worst] > 1e-7]
        fresh = [int(w) for w in worst if int(w) not in seen]
        if not fresh:
            return BestFair(weights, float(errors @ weights), len(seen))
        seen.update(fresh)
        t, i, j = np.unravel_index(np.array(fresh), excess.shape)
        rows = np.vstack([rows, predictions[t, i] - predictions[t, j]])
        limits = np.concatenate([limits, thresholds[t, i, j] - eps])
    raise SupportError(f"cutting planes did not settle in {rounds} iterations")
