"""Exponential weights over a frozen set of hypotheses, with a learning rate that follows the losses' variance.

Exp2 for these linear losses is exponential weights on the hypotheses (Bubeck, Cesa-Bianchi, Kakade 2012, arXiv
1202.3079). The rate ``eta_t = sqrt(ln N / V_t)`` with V_t the summed variance of the losses under the weights
(De Rooij, van Erven, Gruenwald, Koolen 2014, arXiv 1301.0534) needs no horizon and, unlike the worst-case rate, is not
made small by a large multiplier that is rarely charged.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from decision.batch import Floats


class Weights(NamedTuple):
    """State of the learner: a fold over rounds, in the order they arrive.

    Attributes:
        cumulative: [N] summed losses.
        variance: V_t, the summed variance of the losses.
    """

    cumulative: Floats
    variance: float

    @staticmethod
    def prior(hypotheses: int) -> Weights:
        """Return the state before any round: all hypotheses equal."""
        return Weights(np.zeros(hypotheses), 1.0)


def distribution(state: Weights) -> Floats:
    """Return [N] weights of the hypotheses, which sum to 1."""
    rate = np.sqrt(np.log(max(state.cumulative.size, 2)) / state.variance)
    logits = -rate * (state.cumulative - state.cumulative.min())
    weights = np.exp(logits)
    return weights / weights.sum()


def update(state: Weights, losses: Floats) -> Weights:
    """Return the state after one round of [N] losses."""
    weights = distribution(state)
    mean = float(weights @ losses)
    return Weights(state.cumulative + losses, state.variance + float(weights @ (losses - mean) ** 2))


def approval(predictions: Floats, weights: Floats, *, floor: float) -> Floats:
    """Return [k] exact approval probabilities of the mixture, mixed with "approve" so that each is `floor` or more.

    Args:
        predictions: [k, N] each hypothesis' probability of approval.
        weights: [N] from `distribution`.
        floor: smallest probability of approval, in [0, 1): below it one-sided feedback would have no support.
    """
    return floor + (1.0 - floor) * (predictions @ weights)
