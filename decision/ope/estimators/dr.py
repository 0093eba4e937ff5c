"""Doubly robust: a reward model's value plus the weighted residual (Dudik, Langford, Li 2011, arXiv 1103.4601)."""

from __future__ import annotations

from decision.batch import Floats, Interactions, Ints
from decision.ope.estimate import Estimate
from decision.ope.estimators.registry import Mean
from decision.ope.sums.means import MeanSums
from decision.ope.weights import weights_of
from decision.ragged import group_sum


def dr_terms(interactions: Interactions, pmf: Floats, expected: Floats) -> Floats:
    """Return [n] per-row terms ``sum_a pi(a) q(a) + w (r - q)``.

    Args:
        interactions: the log.
        pmf: [m] evaluation policy, flat.
        expected: [m] reward model q, flat, fitted on other rows than these.

    Raises:
        FieldError: shapes differ or a propensity is not in (0, 1].
    """
    weights = weights_of(interactions, pmf)
    direct = group_sum(pmf * expected, interactions.batch.offsets)
    return direct + weights * (interactions.reward - expected[interactions.chosen])


def dr_sums(interactions: Interactions, pmf: Floats, expected: Floats, clusters: Ints | None = None) -> MeanSums:
    """Return the mergeable sums; arguments as `dr_terms`, `clusters` as in `decision.ope.sums.means`."""
    terms = dr_terms(interactions, pmf, expected)
    return MeanSums.of(terms, weights_of(interactions, pmf), cubes=True, clusters=clusters)


def dr(sums: MeanSums, *, level: float = 0.95) -> Estimate:
    """Return the estimate of the sums."""
    return sums.estimate(level)


ESTIMATOR = Mean(lambda rows, weights: rows.direct + weights * rows.residual, needs=("model",))
