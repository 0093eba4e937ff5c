"""What a judgement is explained by: the pair's gap, and how unlike its two people are in what auditors see of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeGuard

import numpy as np

from decision.batch import Floats
from decision.fairness.blinding import Shown

Cards = tuple[Shown, Shown]
GAP = "gap"

MOST = 40
"""Features that differ most often; time grows with the square of their number."""

FEWEST_PAIRS = 5
"""Pairs that must differ in a feature: a name that few people share would point to them."""

_MOST_DEVIATIONS = 4.0


@dataclass(frozen=True, slots=True)
class Covariates:
    """How pairs become d numbers of mean 0 and variance 1 over the pairs they were made from.

    Attributes:
        names: [d] the gap, and the features by their paths.
        unit: [d] standard deviation of a number over people; 0 for what is no number and differs or does not.
        centre: [d] means.
        spread: [d] standard deviations.
    """

    names: tuple[str, ...]
    unit: Floats
    centre: Floats
    spread: Floats

    @staticmethod
    def of(cards: Sequence[Cards], gaps: Floats) -> Covariates:
        """Return those of pairs, shown as `cards` and with these [p] gaps; columns that do not vary become 0."""
        units = {
            name: _unit([card.get(name) for pair in cards for card in pair])
            for name in dict.fromkeys(name for pair in cards for card in pair for name in card)
        }
        differ = {name: sum(first.get(name) != second.get(name) for first, second in cards) for name in units}
        often = sorted((name for name in units if differ[name] >= FEWEST_PAIRS), key=lambda name: (-differ[name], name))
        names = often[:MOST]
        unit = np.array([0.0, *(units[name] for name in names)])
        plain = Covariates((GAP, *names), unit, np.zeros(unit.size), np.ones(unit.size))
        numbers = plain.apply(cards, gaps)
        spread = numbers.std(0)
        return Covariates(plain.names, unit, numbers.mean(0), np.where(spread > 1e-9, spread, np.inf))

    def apply(self, cards: Sequence[Cards], gaps: Floats) -> Floats:
        """Return [p, d] numbers of pairs; differences are without a sign, as in `decision.fairness.mining`."""
        rows = [
            [
                float(gap),
                *(
                    _apart(first.get(name), second.get(name), float(unit))
                    for name, unit in zip(self.names[1:], self.unit[1:], strict=True)
                ),
            ]
            for (first, second), gap in zip(cards, gaps, strict=True)
        ]
        return (np.array(rows, dtype=np.float64).reshape(len(rows), self.unit.size) - self.centre) / self.spread


def _unit(values: Sequence[object]) -> float:
    numbers = [value for value in values if _is_number(value)]
    whole = len(numbers) == sum(value is not None for value in values)
    return float(np.std(numbers)) if numbers and whole else 0.0


def _apart(first: object, second: object, unit: float) -> float:
    if unit > 0.0 and _is_number(first) and _is_number(second):
        return min(abs(first - second) / unit, _MOST_DEVIATIONS)
    return float(first != second)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
