"""FALCON's schedule for gamma: inverse gap weighting with an oracle that was fitted offline, on batches.

    gamma_m = c sqrt(K n_{m-1} / ...)      (Simchi-Levi and Xu 2022, "Bypassing the Monster", Algorithm 1)

n is what the model in charge was trained on, not the decisions ever made; the logarithm of the paper's class size, a
constant for one loop, is part of c. Their proof takes c = 1/30; that explores far more than is needed in practice.
"""

from __future__ import annotations

import math

import numpy as np

from decision.batch import Floats, Ints
from decision.errors import FieldError
from decision.exploration.rule import Exploration, Rule
from decision.exploration.squarecb import squarecb, squarecb_few


def falcon_gamma(offsets: Ints, *, rows: float, scale: float) -> Floats:
    """Return [n] gamma of every decision for `squarecb`, in 1 / reward units for rewards in [0, 1].

    Args:
        offsets: [n + 1]; decision i offers K_i actions.
        rows: effective number of rows that the model was trained on, >= 0; without any the rule is uniform.
        scale: c, >= 0.

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
    gamma = falcon_gamma(offsets, rows=given.rows, scale=given.falcon_scale / (given.high - given.low))
    return squarecb(scores, offsets, gamma=np.minimum(gamma, given.gamma))


def _few(scores: list[float], given: Exploration) -> list[float]:
    rows, scale = given.rows, given.falcon_scale / (given.high - given.low)
    _check(rows, scale)
    return squarecb_few(scores, gamma=min(scale * math.sqrt(len(scores) * rows), given.gamma))


RULE = Rule(_falcon, few=_few)
