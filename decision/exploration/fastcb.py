"""FastCB: inverse gap weighting that explores less where the best action's loss is small.

    p(a) = l_b / (K l_b + gamma (l_a - l_b))   for a != b,      p(b) = 1 - the rest,      b = argmin l

(Foster and Krishnamurthy 2021, arXiv 2107.02237, Algorithm 1, for an oracle with log-loss.) Losses are 1 - reward on
the scale [0, 1]. Where the best loss is 0 every other action has probability 0: serve it under a floor.
"""

from __future__ import annotations

import math

import numpy as np

from decision.batch import Floats, Ints
from decision.errors import FieldError
from decision.exploration.rule import Exploration, Rule
from decision.ragged import group_max, group_sum, spread, sum_of


def fastcb(scores: Floats, offsets: Ints, *, gamma: float, low: float = 0.0, high: float = 1.0) -> Floats:
    """Return [m] probabilities; actions that tie with the best share what is left.

    Args:
        scores: [m] expected rewards, flat; clipped to the range.
        offsets: [n + 1].
        gamma: >= 0; 0 is uniform where the best loss is above 0, large is greedy.
        low: smallest reward.
        high: largest reward, above `low`.

    Raises:
        FieldError: `gamma` is negative or not finite, or the range is empty.
    """
    if not 0.0 <= gamma < math.inf:
        raise FieldError("gamma", wanted="a finite number of 0 or more", got=gamma)
    if not low < high:
        raise FieldError("high", wanted=f"above low = {low}", got=high)
    reward = np.clip((scores - low) / (high - low), 0.0, 1.0)
    top = spread(group_max(reward, offsets), offsets)
    best, loss = reward >= top, 1.0 - top
    k = spread(np.diff(offsets).astype(np.float64), offsets)
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        others = np.where(best, 0.0, loss / (k * loss + gamma * (top - reward)))
    others = np.where(loss > 0.0, others, 0.0)
    left = 1.0 - group_sum(others, offsets)
    tied = group_sum(best.astype(np.float64), offsets)
    return np.where(best, spread(left / tied, offsets), others)


def _pmf(scores: Floats, offsets: Ints, given: Exploration) -> Floats:
    return fastcb(scores, offsets, gamma=given.gamma, low=given.low, high=given.high)


def _few(scores: list[float], given: Exploration) -> list[float]:
    if not 0.0 <= given.gamma < math.inf:
        raise FieldError("gamma", wanted="a finite number of 0 or more", got=given.gamma)
    low, span, gamma, k = given.low, given.high - given.low, given.gamma, float(len(scores))
    reward = [min(max((score - low) / span, 0.0), 1.0) for score in scores]
    top = max(reward)
    loss = 1.0 - top
    others = [loss / (k * loss + gamma * (top - each)) if each < top and loss > 0.0 else 0.0 for each in reward]
    share = (1.0 - sum_of(others)) / reward.count(top)
    return [other if each < top else share for other, each in zip(others, reward, strict=True)]


RULE = Rule(_pmf, few=_few)
