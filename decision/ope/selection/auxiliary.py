"""Auxiliary outcomes: how much of what happens earlier and more often goes into the reward that is learned from.

Clicks come sooner and in greater number than purchases. Where they lead to them, a model of

    r + c x,      c = w sd(r) / sd(x)

of the reward r and the outcome x finds the best action with far fewer decisions; where they do not, it finds what is
clicked. So w is chosen by what it earns in r alone, on rows that the models have not seen, and 0 is always among the
choices. This is behaviour alignment (Gupta, Chandak, Jordan, Thomas and Castro da Silva 2023, arXiv 2310.19007), whose
outer objective is the primary return. There, an implicit gradient carries that objective to the weights; here,
propensities are known, and the doubly robust value of each weight's greedy policy (Dudik, Langford and Li 2011, arXiv
1103.4601) answers directly.

A weight is taken instead of 0 only if it is better by more than one standard error of the paired difference (Breiman,
Friedman, Olshen and Stone 1984, section 3.4.3): the largest of noisy values promises too much. The unit of w is free of
the units of r and x, so a reward that is stated in cents chooses the same weight.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from decision.batch import Floats
from decision.errors import FieldError

ERRORS = 1.0
"""Standard errors by which a weight has to be better than 0."""


class Choice(NamedTuple):
    """Which of w weights was chosen.

    Attributes:
        chosen: its place; 0 where no other is better for certain enough.
        lift: [w] what each is worth more than the first, in reward per decision.
        error: [w] standard errors of that.
    """

    chosen: int
    lift: Floats
    error: Floats


def unit_of(reward: Floats, outcome: Floats, weight: Floats) -> float:
    """Return sd(reward) / sd(outcome): the c of a weight of 1; 0 where either is the same everywhere.

    Args:
        reward: [n] finite.
        outcome: [n] finite.
        weight: [n] how much each row counts, 0 or more.
    """
    one, other = _deviation(reward, weight), _deviation(outcome, weight)
    if not (one > 0.0 and other > 0.0):
        return 0.0
    unit = one / other
    return unit if np.isfinite(unit) else 0.0


def choose(worth: Floats, weight: Floats) -> Choice:
    """Return which weight to learn with.

    Args:
        worth: [w, n] doubly robust terms of the greedy policy of each of w >= 1 weights, the first one 0; the rows are
            such as no model has seen, and the reward is the primary one.
        weight: [n] how much each row counts, 0 or more, some above 0.

    Raises:
        FieldError: shapes differ.
    """
    if worth.ndim != 2 or not len(worth) or worth.shape[1:] != weight.shape:
        raise FieldError("worth", wanted=f"[w, {weight.size}] terms", got=worth.shape)
    apart, total = worth - worth[0], float(weight.sum())
    lift = apart @ weight / total
    error = np.sqrt((apart - lift[:, None]) ** 2 @ weight**2) / total
    better = np.where(lift > ERRORS * error, lift, 0.0)
    return Choice(int(np.argmax(better)), lift, error)


def _deviation(values: Floats, weight: Floats) -> float:
    total = float(weight.sum())
    if not total > 0.0:
        return 0.0
    mean = float(values @ weight) / total
    return float(np.sqrt((values - mean) ** 2 @ weight / total))
