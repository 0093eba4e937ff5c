"""Importance weights of a log for an evaluation policy, and what they say about its support."""

from __future__ import annotations

from decision.batch import Floats, Interactions
from decision.errors import FieldError


def weights_of(interactions: Interactions, pmf: Floats) -> Floats:
    """Return [n] weights: evaluation over logged probability of each chosen action.

    Args:
        interactions: the log.
        pmf: [m] evaluation policy, flat.

    Raises:
        FieldError: shapes differ, or a propensity is not in (0, 1].
    """
    if pmf.shape != (len(interactions.batch.actions),):
        raise FieldError("pmf", wanted=f"[{len(interactions.batch.actions)}] probabilities", got=pmf.shape)
    p = interactions.propensity
    if p.size and not (float(p.min()) > 0 and float(p.max()) <= 1):
        raise FieldError("propensity", wanted="numbers in (0, 1]", got=(float(p.min()), float(p.max())))
    return pmf[interactions.chosen] / p


def effective_sample_size(weights: Floats) -> float:
    """Return (sum w)^2 / sum w^2 (Kong 1992); 0 when all weights are 0."""
    square = float((weights**2).sum())
    return float(weights.sum()) ** 2 / square if square > 0 else 0.0
