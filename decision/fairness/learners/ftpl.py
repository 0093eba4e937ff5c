"""Context-Semi-Bandit-FTPL with geometric resampling: follow the leader of perturbed losses. Experimental.

The perturbation is a fake loss at each context of a small separator, on which any two hypotheses differ (Syrgkanis,
Krishnamurthy, Schapire 2016, arXiv 1602.02454); the leader is an oracle's answer, here exact over a finite class.
Probabilities are not known but sampled: auditors are shown the share of R fresh draws, and an approval's inverse
probability is the number of fresh draws until one approves again, at most L (Neu and Bartok 2013).

Measured weakness (`decision study fairness`, method ``ftpl``): the shares of R draws move in steps of 1 / R, resampling
adds variance that exact propensities do not have, and the same target of violations costs more error than exponential
weights. Use `experts` where the class is small enough to be listed.
"""

from __future__ import annotations

import numpy as np

from decision.batch import Floats, Ints
from decision.errors import FieldError


def leaders(cumulative: Floats, separator: Floats, *, scale: float, draws: int, rng: np.random.Generator) -> Ints:
    """Return [draws] hypotheses, each the leader under its own perturbation.

    Args:
        cumulative: [N] summed estimated losses.
        separator: [N, s] each hypothesis' decisions on the separator.
        scale: of the Laplace perturbation of each decision's loss, > 0; larger explores more.
        draws: how many, 1 or more.
        rng: of the perturbations.

    Raises:
        FieldError: a number is outside its range.
    """
    if not scale > 0:
        raise FieldError("scale", wanted="a number above 0", got=scale)
    if draws < 1:
        raise FieldError("draws", wanted="1 or more", got=draws)
    # A fake loss for either decision: approving costs the first, rejecting the second; only the difference counts.
    fake = rng.laplace(0.0, scale, (draws, separator.shape[1], 2))
    noise = (fake[:, :, 0] - fake[:, :, 1]) @ separator.T
    return (cumulative[None, :] + noise).argmin(1).astype(np.int64)


def empirical(predictions: Floats, drawn: Ints, *, floor: float) -> Floats:
    """Return [k] approval probabilities of the uniform mixture of the drawn hypotheses, mixed with "approve".

    Args:
        predictions: [k, N] each hypothesis' decisions.
        drawn: [R] hypotheses.
        floor: smallest probability of approval, in [0, 1).
    """
    return floor + (1.0 - floor) * predictions[:, drawn].mean(1)


def resampled(predictions: Floats, fresh: Ints, approved: Floats, *, floor: float, rng: np.random.Generator) -> Floats:
    """Return [k] estimates of 1 / pi for the approved, by geometric resampling; 0 for the others.

    Its expectation is ``(1 - (1 - pi)^L) / pi``, short of 1 / pi by the cap's ``(1 - pi)^L / pi``.

    Args:
        predictions: [k, N] each hypothesis' decisions.
        fresh: [L] fresh draws; L is the cap.
        approved: [k] 1 where the person was approved.
        floor: as the people were approved.
        rng: whether a fresh draw approves by the floor.
    """
    approves = (predictions[:, fresh] > 0) | (rng.random((predictions.shape[0], fresh.size)) < floor)
    until = np.where(approves.any(1), approves.argmax(1) + 1.0, float(fresh.size))
    return np.where(approved > 0, until, 0.0)
