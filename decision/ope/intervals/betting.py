"""Confidence sequence by betting against each candidate mean (Waudby-Smith and Ramdas 2023, arXiv 2010.09686).

``K(m) = mean_j prod_t (1 + l_j xi_t)`` with ``xi = (X - m) / (b + m)`` and fixed bets l_j: the product itself, where
`decision.ope.intervals.confidence_sequence` takes a bound of each factor, so it is tighter, and costs a logarithm per
row, bet and candidate. Logarithms are rounded down to 2^-40 and held as integers: any order and partition of rows
gives the same state.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from decision.batch import Floats, Ints
from decision.errors import FieldError

BETS = tuple(float(bet) for bet in np.geomspace(0.002, 0.9, 16))
_SCALE = 2.0**40
_AT_ONCE = 2_048


@dataclass(frozen=True, slots=True, eq=False)
class Bets:
    """Wealth against every candidate mean; `+` merges shards.

    Attributes:
        grid: [M] candidate means, rising.
        below: b, no term can be below -b.
        logs: [M, J] int64 log wealth, times 2^40.
    """

    grid: Floats
    below: float
    logs: Ints

    @staticmethod
    def of(terms: Floats, *, below: float, grid: Floats) -> Bets:
        """Return the wealth after [n] terms.

        Raises:
            FieldError: a term is below ``-below``, or a candidate is not above it.
        """
        if grid.size < 2 or not float(grid[0]) > -below or not bool((np.diff(grid) > 0).all()):
            raise FieldError("grid", wanted=f"two or more rising means above {-below}", got=grid)
        if terms.size and not float(terms.min()) >= -below - 1e-12:
            raise FieldError("terms", wanted=f"numbers of {-below} or more", got=float(terms.min()))
        bets = np.array(BETS)
        logs = np.zeros((grid.size, bets.size), dtype=np.int64)
        for start in range(0, terms.size, _AT_ONCE):
            x = terms[start : start + _AT_ONCE]
            for row, mean in enumerate(grid):
                xi = np.maximum((x - mean) / (below + mean), -1.0)
                factor = np.log1p(bets[:, None] * xi[None, :])
                logs[row] += np.floor(factor * _SCALE).astype(np.int64).sum(1)
        return Bets(grid, below, logs)

    def __add__(self, other: Bets) -> Bets:
        return Bets(self.grid, self.below, self.logs + other.logs)

    def lower_bound(self, alpha: float) -> float:
        """Return a lower bound of the mean that holds at all times at once with probability 1 - alpha."""
        if not 0 < alpha < 1:
            raise FieldError("alpha", wanted="a number in (0, 1)", got=alpha)
        logs = self.logs / _SCALE
        top = logs.max(1)
        wealth = top + np.log(np.exp(logs - top[:, None]).mean(1))
        kept = np.flatnonzero(wealth <= math.log(1.0 / alpha))
        if not kept.size:
            return float(self.grid[-1])
        # The candidate below the first kept one was refuted; the truth may lie anywhere above it.
        first = int(kept[0])
        return float(self.grid[first - 1]) if first else -self.below
