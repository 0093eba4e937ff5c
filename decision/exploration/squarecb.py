"""SquareCB: inverse gap weighting (Foster and Rakhlin 2020, arXiv 2002.04926, Algorithm 1).

    p(a) = 1 / (K + gamma * (f_b - f_a))   for a != b,      p(b) = 1 - the rest,      b = argmax f.

Actions that tie with the best share what is left, so the result does not depend on the order offered. Each p(a) is at
most 1/K, hence the remainder is at least 1/K: a distribution by construction, at every gamma. A product of gamma and
gap beyond the largest double counts as infinite, which leaves the action without probability: the right limit.
"""

from __future__ import annotations

import math

import numpy as np

from decision.batch import Floats, Ints
from decision.errors import FieldError
from decision.exploration.rule import Exploration, Rule
from decision.ragged import group_max, group_sum, spread, sum_of


def squarecb(scores: Floats, offsets: Ints, *, gamma: float | Floats) -> Floats:
    """Return [m] inverse-gap probabilities.

    Args:
        scores: [m] expected rewards, flat and finite.
        offsets: [n + 1].
        gamma: >= 0, one number or [n]; 0 is uniform, large is greedy. In 1 / reward units.

    Raises:
        FieldError: `gamma` is negative or not finite.
    """
    rate = np.asarray(gamma, dtype=np.float64)
    if not ((rate >= 0) & np.isfinite(rate)).all():
        raise FieldError("gamma", wanted="finite numbers of 0 or more", got=gamma)
    per_action = spread(rate, offsets) if rate.ndim else rate
    k = np.diff(offsets).astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        gap = spread(group_max(scores, offsets), offsets) - scores
        best = gap <= 0.0
        others = np.where(best, 0.0, 1.0 / (spread(k, offsets) + per_action * gap))
    left = 1.0 - group_sum(others, offsets)
    tied = group_sum(best.astype(np.float64), offsets)
    return np.where(best, spread(left / tied, offsets), others)


def squarecb_few(scores: list[float], *, gamma: float) -> list[float]:
    """Return the probabilities of one decision between a few actions, bit for bit those of `squarecb`.

    Args:
        scores: [k] expected rewards, finite.
        gamma: as there.

    Raises:
        FieldError: `gamma` is negative or not finite.
    """
    if not 0.0 <= gamma < math.inf:
        raise FieldError("gamma", wanted="finite numbers of 0 or more", got=gamma)
    k, top = float(len(scores)), max(scores)
    others = [1.0 / (k + gamma * (top - score)) if score < top else 0.0 for score in scores]
    share = (1.0 - sum_of(others)) / scores.count(top)
    return [other if score < top else share for other, score in zip(others, scores, strict=True)]


def _few(scores: list[float], given: Exploration) -> list[float]:
    return squarecb_few(scores, gamma=given.gamma / given.unit)


def _pmf(scores: Floats, offsets: Ints, given: Exploration) -> Floats:
    return squarecb(scores, offsets, gamma=given.gamma / given.unit)


RULE = Rule(_pmf, few=_few)
