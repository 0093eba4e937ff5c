"""Decisions as drift looks at them: entries of their contexts, offers, draws and rewards, in flat arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from decision.columns import Texts
from decision.ragged import Floats, Ints


@dataclass(frozen=True, slots=True)
class Observed:
    """n decisions in the order of time.

    Attributes:
        row: [e] which decision each entry of a context is of.
        name: [e] its name, flattened: a category is ``name=value``.
        value: [e] its number, finite.
        offer_row: [m] which decision each offered action is of.
        offered: [m] its id.
        pmf: [m] the probability with which it could be drawn; NaN where only that of the draw is known.
        drawn: [n] id of the action that was drawn.
        propensity: [n] the probability of the draw, above 0.
        reward: [n] NaN where none is known.
        weight: [n] how many decisions each one stands for, above 0.
        block: [n] stretch of time that each one is of, for example its day; any whole numbers, rising.
        subject: [n] whom each one is about; any whole numbers.
    """

    row: Ints
    name: Texts
    value: Floats
    offer_row: Ints
    offered: Texts
    pmf: Floats
    drawn: Texts
    propensity: Floats
    reward: Floats
    weight: Floats
    block: Ints
    subject: Ints

    def __len__(self) -> int:
        return self.propensity.size

    @property
    def effective(self) -> float:
        """Equally weighted decisions that would tell as much, (sum w)^2 / sum w^2."""
        return float(self.weight.sum() ** 2 / (self.weight @ self.weight)) if len(self) else 0.0


def blocks_of(time: Ints, least: int, day: int) -> Ints:
    """Return [n] stretches of time: days where four or more of them have `least` rows each, else eighths of the rows.

    Args:
        time: [n] rising.
        least: rows that a stretch should have; eighths become fewer where they would have less.
        day: length of a day in the unit of `time`.
    """
    days = time // day
    _, code, sizes = np.unique(days, return_inverse=True, return_counts=True)
    if np.count_nonzero(sizes >= least) >= 4:
        return code.astype(np.int64)
    parts = int(np.clip(time.size // max(least, 1), 1, 8))
    return np.arange(time.size, dtype=np.int64) * parts // max(time.size, 1)
