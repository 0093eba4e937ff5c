"""Paired lift: how much better one policy is than another on the same rows.

The doubly robust terms of both are subtracted row by row, so the residuals they share cancel and the interval is far
narrower than two intervals side by side.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from decision.batch import Floats, Interactions
from decision.ope.estimate import Estimate
from decision.ope.estimators.dr import dr_terms
from decision.ope.sums.means import MeanSums
from decision.ope.weights import effective_sample_size, weights_of
from decision.ragged import group_sum


@dataclass(frozen=True, slots=True)
class Lift:
    """A paired difference.

    Attributes:
        sums: of the differences, with the new policy's weights.
        ess_new: effective sample size for the new policy.
        ess_old: effective sample size for the old policy.
    """

    sums: MeanSums
    ess_new: float
    ess_old: float

    def estimate(self, *, level: float = 0.95) -> Estimate:
        """Return the lift with Student's two-sided interval; its effective sample size is the smaller of the two."""
        return replace(self.sums.estimate(level), ess=min(self.ess_new, self.ess_old))

    def lower_bound(self, alpha: float) -> float:
        """Return the one-sided lower bound at error probability `alpha`."""
        return self.sums.interval(1.0 - 2.0 * alpha)[0]


def lift_of(interactions: Interactions, new: Floats, old: Floats, expected: Floats) -> Lift:
    """Return the paired doubly robust lift of `new` over `old`.

    Args:
        interactions: rows that neither the policies nor the reward model were trained on.
        new: [m] pmf of the new policy, flat.
        old: [m] pmf of the old policy, flat.
        expected: [m] reward model, flat.

    Raises:
        FieldError: shapes differ or a propensity is not in (0, 1].
    """
    difference = dr_terms(interactions, new, expected) - dr_terms(interactions, old, expected)
    w_new, w_old = weights_of(interactions, new), weights_of(interactions, old)
    sums = MeanSums.of(difference, w_new)
    return Lift(sums, effective_sample_size(w_new), effective_sample_size(w_old))


def switched_lift_of(
    interactions: Interactions, new: Floats, old: Floats, expected: Floats, *, largest: float = 10.0
) -> Lift:
    """Return the paired Switch-DR lift: residuals count only where neither weight is above `largest`.

    What lies beyond is left to the reward model (Wang, Agarwal, Dudik 2017, arXiv 1612.01205): far narrower than
    `lift_of`, and biased where that model is; arguments as there.
    """
    w_new, w_old = weights_of(interactions, new), weights_of(interactions, old)
    direct = group_sum((new - old) * expected, interactions.batch.offsets)
    residual = interactions.reward - expected[interactions.chosen]
    kept = np.maximum(w_new, w_old) <= largest
    sums = MeanSums.of(direct + np.where(kept, (w_new - w_old) * residual, 0.0), np.where(kept, w_new, 0.0))
    return Lift(sums, effective_sample_size(w_new), effective_sample_size(w_old))


def with_reasons(estimate: Estimate, *reasons: str) -> Estimate:
    """Return `estimate` with further reasons not to trust it."""
    return replace(estimate, reasons=(*estimate.reasons, *reasons))
