"""UCBVI: always the optimistic policy, no constraint (Azar, Osband, Munos 2017, arXiv 1703.05449)."""

from __future__ import annotations

from decision.batch import Floats
from decision.conservative.tabular.confidence import Model, optimistic


def plan(model: Model) -> Floats:
    """Return the policy [n, H, S, A] that is greedy in the upper bounds."""
    return optimistic(model)[0]
