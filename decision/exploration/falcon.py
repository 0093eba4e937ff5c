"""FALCON's schedule for gamma: inverse gap weighting with an oracle that was fitted offline, on batches.

    gamma_m = c sqrt(K n_{m-1} / ...)      (Simchi-Levi and Xu 2022, "Bypassing the Monster", Algorithm 1)

n is what the model in charge was trained on, not the decisions ever made; the logarithm of the paper's class size, a
constant for one loop, is part of c. Their proof takes c = 1/30; that explores far more than is needed in practice.
Rewards there lie in [0, 1]; here gaps are measured by the rewards' noise, gamma = c sqrt(K n) / sigma, whatever they
are stated in. Versions that do not know sigma measure by the rewards' range.
"""

from __future__ import annotations

import math

import numpy as np

from decision.batch import Floats, Ints
from decision.errors import FieldError
from decision.exploration.rule import Exploration, Rule
from decision.exploration.squarecb import squarecb, squarecb_few


def falcon_gamma(offsets: Ints, *, rows: float, scale: float) -> Floats:
    """Return [n] gamma of every decision for `squarecb`, in 1 / reward units.

    Args:
        offsets: [n + 1]; decision i offers K_i actions.
        rows: effective number of rows that the model was trained on, >= 0; without any the rule is uniform.
        scale: c per reward unit, >= 0.

    Raises:
        FieldError: a number is negative or not finite.
    """
    _check(rows, scale)
    return scale * np.sqrt(np.diff(offsets) * rows)


def _check(rows: float, scale: float) -> None:
    for field, value in (("rows", rows), ("falcon_scale", scale)):
        if not 0.0 <= value < math.inf:
            raise FieldError(field, wanted="a finite number of 0 or more", got=value)


def _falcon(scores: Floats, offsets: Ints, given: Exploration) -> Floats:
    scale, most = _numbers(given)
    gamma = falcon_gamma(offsets, rows=given.rows, scale=scale)
    return squarecb(scores, offsets, gamma=np.minimum(gamma, most))


def _few(scores: list[float], given: Exploration) -> list[float]:
    scale, most = _numbers(given)
    _check(given.rows, scale)
    return squarecb_few(scores, gamma=min(scale * math.sqrt(len(scores) * given.rows), most))


def _numbers(given: Exploration) -> tuple[float, float]:
    """Return c and the largest gamma, in 1 / reward units."""
    if given.sigma:
        return given.falcon_scale / given.unit, math.inf
    return given.falcon_scale / (given.high - given.low), given.gamma


RULE = Rule(_falcon, few=_few)
