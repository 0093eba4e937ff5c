"""A running mean as mergeable sums: count, sum and sum of squares of per-row terms."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from decision.batch import Floats
from decision.errors import SupportError


@dataclass(frozen=True, slots=True)
class MeanSums:
    """Sums of per-row terms; `+` merges shards.

    Attributes:
        n: rows.
        total: sum of the terms.
        square: sum of their squares.
        weight: sum of importance weights.
        weight_square: sum of their squares.
        largest: largest weight.
    """

    n: int = 0
    total: float = 0.0
    square: float = 0.0
    weight: float = 0.0
    weight_square: float = 0.0
    largest: float = 0.0

    @staticmethod
    def of(terms: Floats, weights: Floats) -> MeanSums:
        """Return the sums of [n] terms with their [n] importance weights."""
        return MeanSums(
            int(terms.size),
            math.fsum(terms),
            math.fsum(terms**2),
            math.fsum(weights),
            math.fsum(weights**2),
            float(weights.max(initial=0.0)),
        )

    def __add__(self, other: MeanSums) -> MeanSums:
        return MeanSums(
            self.n + other.n,
            self.total + other.total,
            self.square + other.square,
            self.weight + other.weight,
            self.weight_square + other.weight_square,
            max(self.largest, other.largest),
        )

    @property
    def mean(self) -> float:
        """Mean of the terms.

        Raises:
            SupportError: there are no rows.
        """
        if not self.n:
            raise SupportError("there are no rows to estimate from")
        return self.total / self.n

    @property
    def ess(self) -> float:
        """Effective sample size of the weights."""
        return self.weight**2 / self.weight_square if self.weight_square > 0 else 0.0

    def student(self, level: float) -> tuple[float, float]:
        """Return Student's interval of the mean; infinite below two rows.

        Exact for normal terms; with heavy-tailed weights it undercovers, which `doubts` of the effective sample size
        is there to catch.
        """
        if self.n < 2:
            return -np.inf, np.inf
        variance = max(self.square - self.total**2 / self.n, 0.0) / (self.n - 1)
        half = float(stats.t.ppf(0.5 + level / 2.0, self.n - 1)) * math.sqrt(variance / self.n)
        return self.mean - half, self.mean + half

    def doubts(self) -> tuple[str, ...]:
        """Return the reasons for which an estimate from these weights should not be trusted."""
        reasons: list[str] = []
        if self.n < 2:
            return ("fewer than two rows",)
        mean = self.weight / self.n
        spread = math.sqrt(max(self.weight_square / self.n - mean**2, 0.0) / self.n)
        if abs(mean - 1.0) > 3.0 * spread + 1e-9:
            reasons.append(f"mean weight {mean:.3f} is not 1: propensities or support are wrong")
        if self.ess < max(30.0, 0.01 * self.n):
            reasons.append(f"effective sample size {self.ess:.0f} of {self.n} rows")
        if self.weight > 0 and self.largest / self.weight > 0.1:
            reasons.append(f"one row carries {self.largest / self.weight:.0%} of the weight")
        return tuple(reasons)
