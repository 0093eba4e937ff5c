"""What the rewards of nights add up to, and a mean over all of them with an interval that holds at every look.

A night keeps four sums of the rewards that it settled, so whoever looks at a loop reads no history. The interval is a
confidence sequence (`decision.ope.intervals.confidence_sequence`): with its level, the mean reward lies in it at all
nights at once, so somebody may look every morning and act on the day it moves.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import msgspec

from decision.batch import Floats
from decision.ope.intervals.confidence_sequence import lower_bound


class Rewards(msgspec.Struct, frozen=True, kw_only=True):
    """Rewards of a night.

    Attributes:
        n: settled decisions.
        total: sum of their rewards.
        square: sum of their squares.
        low: the smallest; 0 without one.
        high: the largest; 0 without one.
    """

    n: int = 0
    total: float = 0.0
    square: float = 0.0
    low: float = 0.0
    high: float = 0.0


class Running(NamedTuple):
    """The mean over all nights so far, with the ends of its interval."""

    n: int
    mean: float
    low: float
    high: float


def rewards_of(values: Floats) -> Rewards:
    """Return what [n] rewards add up to."""
    if not values.size:
        return Rewards()
    return Rewards(
        n=int(values.size),
        total=float(values.sum()),
        square=float(values @ values),
        low=float(values.min()),
        high=float(values.max()),
    )


def running(
    nights: Sequence[Rewards],
    smallest: float | None,
    largest: float | None,
    *,
    level: float = 0.95,
    latest: int | None = None,
) -> list[Running]:
    """Return the mean so far, night by night.

    Args:
        nights: oldest first.
        smallest: the smallest reward that there is; None for the smallest that was seen, which nobody promises.
        largest: likewise the largest.
        level: with which the interval holds at all nights at once, in (0, 1).
        latest: so many of the latest nights are returned; None for all.
    """
    seen = [night for night in nights if night.n]
    low = min((night.low for night in seen), default=0.0) if smallest is None else smallest
    high = max((night.high for night in seen), default=0.0) if largest is None else largest
    sums: list[tuple[int, float, float]] = []
    n, total, square = 0, 0.0, 0.0
    for night in nights:
        n, total, square = n + night.n, total + night.total, square + night.square
        sums.append((n, total, square))
    return [_interval(*each, low, high, level) for each in (sums if latest is None else sums[-latest:])]


@lru_cache(maxsize=4_096)  # a page shows the same nights again and again
def _interval(n: int, total: float, square: float, low: float, high: float, level: float) -> Running:
    if not n:
        return Running(0, 0.0, low, high)
    if low >= high:
        return Running(n, total / n, low, low)
    width, half = high - low, (1.0 - level) / 2.0
    up, down = total - n * low, n * high - total  # of rewards above the smallest, of what lacks to the largest
    squares = square - 2.0 * low * total + n * low**2, square - 2.0 * high * total + n * high**2
    below, above = (
        lower_bound(n, of, max(of_squares, 0.0), below=0.0, smallest=0.0, largest=width, alpha=half)
        for of, of_squares in zip((up, down), squares, strict=True)
    )
    return Running(n, total / n, low + below, high - above)
