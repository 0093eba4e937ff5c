"""Inverse propensity scoring: the mean of w * r (Horvitz and Thompson 1952)."""

from __future__ import annotations

from decision.batch import Floats
from decision.ope.estimate import Estimate
from decision.ope.estimators.registry import Mean
from decision.ope.sums.means import MeanSums


def ips_sums(weights: Floats, reward: Floats) -> MeanSums:
    """Return the mergeable sums of [n] rows."""
    return MeanSums.of(weights * reward, weights, cubes=True)


def ips(sums: MeanSums, *, level: float = 0.95) -> Estimate:
    """Return the estimate of the sums; unbiased where the log has support."""
    return sums.estimate(level)


ESTIMATOR = Mean(lambda rows, weights: weights * rows.reward)
