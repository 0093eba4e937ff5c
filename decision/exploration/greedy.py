"""The best action alone; ties share the mass, so the order offered does not matter."""

from __future__ import annotations

import numpy as np

from decision.batch import Floats, Ints
from decision.ragged import group_max, normalise, spread


def greedy(scores: Floats, offsets: Ints) -> Floats:
    """Return [m] probabilities concentrated on each decision's largest scores ([m]).

    A greedy policy leaves the other actions without support; serve it under a floor or nothing can be evaluated.
    """
    best = scores >= spread(group_max(scores, offsets), offsets)
    return normalise(best.astype(np.float64), offsets)


def greedy_few(scores: list[float]) -> list[float]:
    """Return the probabilities of one decision between a few actions, bit for bit those of `greedy`."""
    top = max(scores)
    share = 1.0 / scores.count(top)
    return [share if score >= top else 0.0 for score in scores]
