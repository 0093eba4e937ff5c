"""Every eligible action alike."""

from __future__ import annotations

import numpy as np

from decision.batch import Floats, Ints
from decision.exploration.rule import Exploration, Rule
from decision.ragged import spread


def uniform(offsets: Ints) -> Floats:
    """Return [m] probabilities 1 / K of each decision's K actions."""
    return spread(1.0 / np.diff(offsets), offsets)


def _pmf(scores: Floats, offsets: Ints, given: Exploration) -> Floats:
    return uniform(offsets)


def _few(scores: list[float], given: Exploration) -> list[float]:
    return [1.0 / len(scores)] * len(scores)


RULE = Rule(_pmf, few=_few)
