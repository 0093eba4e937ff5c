"""Tilt: the ranking that an application sends, re-weighted by what its actions are expected to earn.

    p(a) proportional to q(a) exp(lambda f_a),      q(a) proportional to rank(a)^-eta

Steering by a value function draws K proposals of a policy q and takes one by a softmax of their values (Nakamoto, Mees,
Kumar and Levine 2024, V-GPS, arXiv 2410.13816). Which proposals there were, and so the propensity, is then unknown.
Over the offered actions the same tilt has a closed form, the limit of many proposals: it maximises the expected reward
less KL(p, q) / lambda (Peters, Muelling and Altun 2010). A ranking says no probabilities; here they fall as a power of
the place, as attention does along a ranking (Joachims, Swaminathan and Schnabel 2017, arXiv 1608.04468). With eta = 0
the tilt is `softmax`, with lambda = 0 the ranking alone.
"""

from __future__ import annotations

import math

import numpy as np

from decision.batch import Floats, Ints
from decision.errors import FieldError
from decision.exploration.rule import Exploration, Rule
from decision.ragged import group_max, normalise, spread

_FARTHEST = float(np.finfo(np.float64).max)  # a gap that overflows, times 0, is 0


def ranked(offsets: Ints, *, steepness: float) -> Floats:
    """Return [m] probabilities that fall with the place in the order offered, as the place to the power -steepness.

    Args:
        offsets: [n + 1].
        steepness: eta, >= 0; 0 is uniform, large takes the first.

    Raises:
        FieldError: `steepness` is negative or not finite.
    """
    _check("steepness", steepness)
    return normalise(np.exp(-steepness * _log_places(offsets)), offsets)


def tilt(scores: Floats, offsets: Ints, *, inverse_temperature: float, steepness: float) -> Floats:
    """Return [m] probabilities; the largest exponent is taken as 0, so nothing overflows.

    Args:
        scores: [m] expected rewards, flat, in the order that the application ranked its actions in.
        offsets: [n + 1].
        inverse_temperature: lambda, >= 0, in 1 / reward units; 0 is the ranking, large is greedy.
        steepness: eta, as in `ranked`.

    Raises:
        FieldError: a number is negative or not finite.
    """
    _check("inverse_temperature", inverse_temperature)
    _check("steepness", steepness)
    with np.errstate(over="ignore"):
        behind = np.maximum(scores - spread(group_max(scores, offsets), offsets), -_FARTHEST)
        gap = inverse_temperature * behind
    exponent = gap - steepness * _log_places(offsets)
    return normalise(np.exp(exponent - spread(group_max(exponent, offsets), offsets)), offsets)


def _log_places(offsets: Ints) -> Floats:
    """Return [m] the logarithm of each action's place, from 1 on, in the order offered."""
    return np.log(np.arange(int(offsets[-1])) - spread(offsets[:-1].astype(np.float64), offsets) + 1.0)


def _check(field: str, value: float) -> None:
    if not 0.0 <= value < math.inf:
        raise FieldError(field, wanted="a finite number of 0 or more", got=value)


def _pmf(scores: Floats, offsets: Ints, given: Exploration) -> Floats:
    return tilt(scores, offsets, inverse_temperature=given.inverse_temperature / given.unit, steepness=given.steepness)


RULE = Rule(_pmf)
