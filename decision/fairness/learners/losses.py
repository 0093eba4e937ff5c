"""One round's estimated losses: labels seen only for those approved, and the panel's report as a cost.

For a 0/1 hypothesis h, with labels y seen where ``approved`` holds and the policy's propensities pi,

    L(h) = sum_i [ h(x_i) * 2 (1 - y_i) * approved_i / pi_i  +  (1 - h(x_i)) ]  +  C * (h(x_i*) + 1 - h(x_j*))

is non-negative and ``E[L(h)] = Err(h) + const + C * (gap of h + 1)``: the label part is one-sided feedback made
unbiased by importance weights, the panel part is full information (Bechavod and Roth 2023, in the weighted form proved
in the project's documentation; the paper uses copies of contexts instead).
"""

from __future__ import annotations

import numpy as np

from decision.batch import Floats


def label_losses(predictions: Floats, approved: Floats, labels: Floats, propensity: Floats) -> Floats:
    """Return [N] label losses of N hypotheses on one round.

    Args:
        predictions: [k, N] each hypothesis' probability of approval.
        approved: [k] 1 where the person was approved.
        labels: [k] outcome in [0, 1]; anything where not approved.
        propensity: [k] probability of approval, above 0 where approved.
    """
    seen = np.where(approved > 0, 2.0 * (1.0 - labels) / np.where(approved > 0, propensity, 1.0), 0.0)
    return (predictions * seen[:, None] + (1.0 - predictions)).sum(0)


def doubly_robust_costs(approved: Floats, labels: Floats, propensity: Floats, expected: Floats) -> Floats:
    """Return [k] costs of approving instead of rejecting, in [-1, 1] on average, by the doubly robust estimate.

    Args:
        approved: [k] 1 where the person was approved.
        labels: [k] outcome in [0, 1]; anything where not approved.
        propensity: [k] probability of approval.
        expected: [k] a model's expected label.
    """
    model = 1.0 - 2.0 * expected
    residual = (1.0 - 2.0 * labels - model) / np.where(approved > 0, propensity, 1.0)
    # Labels of the rejected may be anything, NaN included: they are left out, not multiplied by zero.
    return model + np.where(approved > 0, residual, 0.0)


def report_losses(favoured: Floats, disfavoured: Floats, cost: float) -> Floats:
    """Return [N] panel losses of one report.

    Args:
        favoured: [N] each hypothesis' probability of approving the favoured person.
        disfavoured: [N] the same for the other person.
        cost: the multiplier C, >= 0.
    """
    return cost * (favoured + 1.0 - disfavoured)
