"""Decisions as drift looks at them: entries of their contexts, offers, draws and rewards, in flat arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from decision.columns import Texts
from decision.ragged import Floats, Ints


@dataclass(frozen=True, slots=True)
class Described:
    """n things with features: decisions with those of their contexts, or offers with those of their actions.

    Attributes:
        row: [e] which thing each entry is of.
        name: [e] its name, flattened: a category is ``name=value``.
        value: [e] its number, finite.
        weight: [n] how much each one counts, above 0.
        block: [n] stretch of time that each one is of, for example its day; any whole numbers, rising.
        subject: [n] whom each one is about; any whole numbers.
    """

    row: Ints
    name: Texts
    value: Floats
    weight: Floats
    block: Ints
    subject: Ints

    def __len__(self) -> int:
        return self.weight.size


@dataclass(frozen=True, slots=True)
class Offered(Described):
    """n offers of actions, decision after decision; the weights of a decision's add up to what it stands for.

    So shares are means over decisions, and no less certain than those of one offer drawn from each decision would be.

    Attributes:
        decision: [n] which decision each one is of; any whole numbers.
        action: [n] id of the action.
    """

    decision: Ints
    action: Texts


@dataclass(frozen=True, slots=True)
class Observed(Described):
    """n decisions in the order of time.

    Attributes:
        weight: [n] how many decisions each one stands for, above 0.
        offer_row: [m] which decision each offered action is of.
        offered: [m] its id.
        pmf: [m] the probability with which it could be drawn; NaN where only that of the draw is known.
        drawn: [n] id of the action that was drawn.
        propensity: [n] the probability of the draw, above 0.
        reward: [n] NaN where none is known.
        actions: the offers of some or all of the decisions, with the actions' features; None where they are not known.
    """

    offer_row: Ints
    offered: Texts
    pmf: Floats
    drawn: Texts
    propensity: Floats
    reward: Floats
    actions: Offered | None = None

    @property
    def effective(self) -> float:
        """Equally weighted decisions that would tell as much, (sum w)^2 / sum w^2."""
        return effective_of(self.weight)


def effective_of(weight: Floats) -> float:
    """Return how many equal weights would tell as much as these ([n], above 0), (sum w)^2 / sum w^2."""
    return float(weight.sum() ** 2 / (weight @ weight)) if weight.size else 0.0


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
