"""Softmax, or Boltzmann exploration: p(a) proportional to exp(lambda f_a) (Luce 1959; Sutton and Barto 2018, 2.8).

The rule has no link from gap to confidence: lambda must be near one over a typical gap, or it is uniform or greedy.
"""

from __future__ import annotations

import math

import numpy as np

from decision.batch import Floats, Ints
from decision.errors import FieldError
from decision.exploration.rule import Exploration, Rule
from decision.ragged import group_max, normalise, spread


def softmax(scores: Floats, offsets: Ints, *, inverse_temperature: float) -> Floats:
    """Return [m] probabilities; the best action's exponent is taken as 0, so nothing overflows.

    Args:
        scores: [m] expected rewards, flat.
        offsets: [n + 1].
        inverse_temperature: lambda, >= 0, in 1 / reward units; 0 is uniform, large is greedy.

    Raises:
        FieldError: `inverse_temperature` is negative or not finite.
    """
    if not 0.0 <= inverse_temperature < math.inf:
        raise FieldError("inverse_temperature", wanted="a finite number of 0 or more", got=inverse_temperature)
    with np.errstate(over="ignore"):
        exponent = inverse_temperature * (scores - spread(group_max(scores, offsets), offsets))
    return normalise(np.exp(np.maximum(exponent, -745.0)) * (exponent > -745.0), offsets)


def _pmf(scores: Floats, offsets: Ints, given: Exploration) -> Floats:
    return softmax(scores, offsets, inverse_temperature=given.inverse_temperature / given.unit)


RULE = Rule(_pmf)
