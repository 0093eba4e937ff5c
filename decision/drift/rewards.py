"""Mean rewards whose difference between two samples has nothing to do with who drew the actions, and a test of it.

Two logs that were drawn by different policies have different mean rewards where nothing changed. Weighted by
q(a) / p(a | x), where p is the propensity and q a fixed distribution over actions, both are estimates of one number:
what the actions earn when they are drawn blindly at the rates q (Horvitz and Thompson 1952, self-normalised). Here q is
how often the training log drew each action, and cancels in the mean of one action.

The test is one of two means under a common distribution. Its tail is Pearson's type III with the difference's first
three cumulants: the gamma curve that a sum of few rare clicks or of unequal weights has, where a normal one gives
chances wrong by orders of magnitude.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec
import numpy as np

from decision.ragged import Floats, Ints

LEAST_BEFORE, LEAST_NOW = 100.0, 30.0
"""Effective decisions of a cell without which nothing is said of its rewards."""
MOST_SKEW = 0.7
"""Of a difference of means, beyond which three cumulants do not say its tail: that of two clicks."""
LEAST_BLOCK = 50.0
"""The same, of a stretch of time whose mean is kept."""


class Rewards(msgspec.Struct, frozen=True, kw_only=True):
    """Rewards of the decisions in a cell.

    Attributes:
        mean: weighted.
        effective: equally weighted decisions that would tell as much.
        tilt: sum w^3 / (sum w)^3.
        variance: of a reward.
        third: its third central moment.
        low: smallest mean of a stretch of time with enough decisions; `mean` where there is none.
        high: largest.
    """

    mean: float
    effective: float
    tilt: float
    variance: float
    third: float
    low: float
    high: float


class Compared(NamedTuple):
    """Two means of rewards: the later less the earlier one, its standard error where nothing changed, and p-value."""

    change: float
    error: float
    p: float


def rewards_of(row: Ints, cell: Ints, cells: int, weight: Floats, reward: Floats, block: Ints) -> list[Rewards | None]:
    """Return the rewards of each cell; None for one without a decision.

    Args:
        row: [p] decision of each pair.
        cell: [p] its cell.
        cells: how many there are.
        weight: [n] of the decisions; 0 leaves one out.
        reward: [n] finite wherever the weight is not 0.
        block: [n] stretch of time of each decision, from 0.
    """
    w, r = weight[row], np.where(weight[row] > 0, reward[row], 0.0)
    middle = float(weight @ np.where(weight > 0, reward, 0.0) / weight.sum()) if weight.any() else 0.0
    r = np.where(w > 0, r - middle, 0.0)  # moments about a point in the middle of them lose no digits
    sums = np.array([np.bincount(cell, x, cells) for x in (w, w**2, w**3, w * r, w * r**2, w * r**3)])
    low, high = _range(row, cell, cells, weight, r, block)
    found: list[Rewards | None] = []
    for at, (s, s2, s3, m1, m2, m3) in enumerate(sums.T.tolist()):
        if s <= 0.0:
            found.append(None)
            continue
        mean, square, cube = m1 / s, m2 / s, m3 / s
        found.append(
            Rewards(
                mean=middle + mean,
                effective=s * s / s2,
                tilt=s3 / s**3,
                variance=max(square - mean**2, 0.0),
                third=cube - 3 * mean * square + 2 * mean**3,
                low=middle + min(low[at], mean),
                high=middle + max(high[at], mean),
            )
        )
    return found


def _range(
    row: Ints, cell: Ints, cells: int, weight: Floats, r: Floats, block: Ints
) -> tuple[list[float], list[float]]:
    """Return [cells] smallest and largest mean of a block with enough decisions; inf and -inf without."""
    blocks = int(block.max(initial=0)) + 1
    place, w = block[row] * cells + cell, weight[row]
    s, s2, m = (np.bincount(place, x, blocks * cells).reshape(blocks, cells) for x in (w, w**2, w * r))
    with np.errstate(divide="ignore", invalid="ignore"):
        enough, mean = s**2 / s2 >= LEAST_BLOCK, m / s
    return np.where(enough, mean, np.inf).min(axis=0).tolist(), np.where(enough, mean, -np.inf).max(axis=0).tolist()


def compared(now: Rewards, before: Rewards) -> Compared:
    """Return how the mean changed, and the two-sided p-value of "it did not"."""
    a, b = now.effective, before.effective
    change, both = now.mean - before.mean, a + b
    x, y = change * b / both, -change * a / both  # the means beside the common one
    variance = (a * (now.variance + x * x) + b * (before.variance + y * y)) / both
    third = (a * (now.third + 3 * now.variance * x + x**3) + b * (before.third + 3 * before.variance * y + y**3)) / both
    spread = variance * (1.0 / a + 1.0 / b)
    if spread <= 0.0:
        return Compared(change, 0.0, 1.0)
    error = float(np.sqrt(spread))
    skew, z = third * (now.tilt - before.tilt) / spread**1.5, change / error
    if abs(skew) > MOST_SKEW:
        return Compared(change, error, 1.0)
    from scipy.stats import pearson3  # half a second to import, for this alone

    tail = pearson3.cdf(z, skew) if z < 0 else pearson3.sf(z, skew)
    return Compared(change, error, float(min(1.0, 2.0 * tail)))
