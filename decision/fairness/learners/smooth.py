"""A smooth stochastic policy fitted to costs and reports: logistic probabilities instead of a mixture of hypotheses.

    minimise  mean_i cost_i * pi(x_i)  +  C / n * sum_reports max(0, pi(x_i) - pi(x_j) - alpha)  +  ridge |w|^2

with ``pi(x) = 1 / (1 + exp(-w.x - b))`` and label costs by importance weights or doubly robust (`losses`). The
Lagrangian of Bechavod and Roth 2023 (arXiv 2206.04475) on a parametric class, where a gap shrinks by degrees and no
report is charged below what the panel accepts. Not convex: it starts where it last was.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from scipy.optimize import minimize

from decision.batch import Floats, Ints


def probability(weights: Floats, features: Floats) -> Floats:
    """Return [...] probabilities of approval of `features` ([..., d]) under `weights` ([d + 1], the intercept last)."""
    return 1.0 / (1.0 + np.exp(-np.clip(features @ weights[:-1] + weights[-1], -30.0, 30.0)))


def fit(
    start: Floats,
    features: Floats,
    costs: Floats,
    favoured: Ints,
    disfavoured: Ints,
    *,
    cost: float,
    alpha: float,
    ridge: float = 1e-3,
    iterations: int = 60,
) -> Floats:
    """Return [d + 1] weights.

    Args:
        start: [d + 1] where to begin.
        features: [n, d] people, those of reports among them.
        costs: [n] cost of approving instead of rejecting.
        favoured: [p] rows of the favoured people of the reports.
        disfavoured: [p] rows of the others.
        cost: C, >= 0.
        alpha: gap that costs nothing.
        ridge: penalty of the weights.
        iterations: of L-BFGS at most.
    """
    n = max(costs.size, 1)

    def objective(weights: Floats) -> tuple[float, Floats]:
        pi = probability(weights, features)
        slope = pi * (1.0 - pi)
        excess = pi[favoured] - pi[disfavoured] - alpha
        over = (excess > 0).astype(np.float64)
        value = float(costs @ pi + cost * (excess * over).sum()) / n + ridge * float(weights[:-1] @ weights[:-1])
        push = costs.copy()
        np.add.at(push, favoured, cost * over)
        np.add.at(push, disfavoured, -cost * over)
        push *= slope / n
        gradient = np.append(push @ features + 2.0 * ridge * weights[:-1], push.sum())
        return value, gradient

    solved = cast("Any", minimize(objective, start, jac=True, method="L-BFGS-B", options={"maxiter": iterations}))
    return np.asarray(solved.x, dtype=np.float64)
