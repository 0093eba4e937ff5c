"""A mean as mergeable sums of per-row terms: exact, so that any order and any partition of rows give the same bits."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from decision.batch import Floats, Ints
from decision.errors import SupportError
from decision.ope.estimate import Estimate
from decision.ope.sums.clusters import ClusterSums, Spread, merged_clusters
from decision.ope.sums.exact import Exact, added, exact_sum, exact_sums, rounded
from decision.ope.sums.skewness import skewed, skewness_of


@dataclass(frozen=True, slots=True)
class Support:
    """Sums of importance weights w: what says whether a log supports a policy; `+` merges shards.

    Every row may stand for c decisions, c = 1 / its chance of being kept; c = 1 where nothing was left out.

    Attributes:
        n: rows.
        mass: sum of c.
        mass_square: sum of c^2.
        weight: sum of c w.
        weight_cross: sum of c^2 w.
        weight_square: sum of c^2 w^2.
        largest: largest c w.
    """

    n: int = 0
    mass: Exact = ()
    mass_square: Exact = ()
    weight: Exact = ()
    weight_cross: Exact = ()
    weight_square: Exact = ()
    largest: float = 0.0

    @staticmethod
    def of(weights: Floats, counts: Floats | None = None) -> Support:
        """Return the sums of [n] weights and, where rows were left out of the log, [n] counts c."""
        n = int(weights.size)
        if counts is None:
            weight, square = exact_sums([weights, weights**2])
            mass = (float(n),) if n else ()
            return Support(n, mass, mass, weight, weight, square, float(weights.max(initial=0.0)))
        columns = [counts, counts**2, counts * weights, counts**2 * weights, (counts * weights) ** 2]
        mass, mass_square, weight, cross, square = exact_sums(columns)
        return Support(n, mass, mass_square, weight, cross, square, float((counts * weights).max(initial=0.0)))

    def __add__(self, other: Support) -> Support:
        return Support(
            self.n + other.n,
            added(self.mass, other.mass),
            added(self.mass_square, other.mass_square),
            added(self.weight, other.weight),
            added(self.weight_cross, other.weight_cross),
            added(self.weight_square, other.weight_square),
            max(self.largest, other.largest),
        )

    @property
    def mean(self) -> float:
        """Mean weight, 1 up to chance in a log that supports the policy; NaN without rows."""
        return rounded(self.weight) / rounded(self.mass) if self.n else math.nan

    @property
    def mean_error(self) -> float:
        """Standard error of the mean weight; infinite below two rows."""
        if self.n < 2:
            return math.inf
        square = ratio_square(self.mean, self.weight_square, self.weight_cross, self.mass_square)
        return math.sqrt(square) / rounded(self.mass)

    @property
    def ess(self) -> float:
        """Effective sample size of the weights, (sum w)^2 / sum w^2 (Kong 1992)."""
        square = rounded(self.weight_square)
        return rounded(self.weight) ** 2 / square if square > 0 else 0.0

    @property
    def largest_share(self) -> float:
        """Share of all weight that one row carries."""
        total = rounded(self.weight)
        return self.largest / total if total > 0 else 0.0

    def doubts(self) -> tuple[str, ...]:
        """Return the reasons for which an estimate from these weights should not be trusted."""
        reasons: list[str] = []
        if self.n < 2:
            return ("fewer than two rows",)
        if abs(self.mean - 1.0) > 3.0 * self.mean_error + 1e-9:
            reasons.append(f"mean weight {self.mean:.3f} is not 1: propensities or support are wrong")
        if self.ess < max(30.0, 0.01 * self.n):
            reasons.append(f"effective sample size {self.ess:.0f} of {self.n} rows")
        if self.largest_share > 0.1:
            reasons.append(f"one row carries {self.largest_share:.0%} of the weight")
        return tuple(reasons)


@dataclass(frozen=True, slots=True)
class MeanSums:
    """Sums of per-row terms t; `+` merges shards.

    Attributes:
        support: sums of the importance weights.
        total: sum of c t.
        cross: sum of c^2 t.
        square: sum of c^2 t^2.
        cubes: sums of c^3, c^3 t, c^3 t^2 and c^3 t^3; empty where nobody asks for the skewness.
        clusters: sums of c and c t by cluster; None where rows are independent.
        settled: how the mean errs by these, in their place once nothing more is added; see `settle`.
    """

    support: Support = Support()
    total: Exact = ()
    cross: Exact = ()
    square: Exact = ()
    cubes: tuple[Exact, ...] = ()
    clusters: ClusterSums | None = None
    settled: Spread | None = None

    @staticmethod
    def of(
        terms: Floats,
        weights: Floats,
        counts: Floats | None = None,
        *,
        cubes: bool = False,
        clusters: Ints | None = None,
    ) -> MeanSums:
        """Return the sums of [n] terms.

        Args:
            terms: [n].
            weights: [n] importance weights.
            counts: as in `Support.of`.
            cubes: sum what the skewness needs, too.
            clusters: [n] cluster of each row, whose rows depend on one another (`decision.ope.sums.clusters`); None
                where rows are independent.
        """
        support, columns = Support.of(weights, counts), mean_columns(terms, counts)
        cubed = cube_columns(terms, counts, columns) if cubes else ()
        if clusters is None:
            return MeanSums(support, *columns, cubed)
        one = np.ones(len(terms)) if counts is None else counts
        return MeanSums(support, *columns, cubed, ClusterSums.of([one, one * terms], clusters))

    def __add__(self, other: MeanSums) -> MeanSums:
        return MeanSums(
            self.support + other.support,
            added(self.total, other.total),
            added(self.cross, other.cross),
            added(self.square, other.square),
            merged_cubes((self.n, self.cubes), (other.n, other.cubes)),
            merged_clusters((self.n, self.clusters), (other.n, other.clusters)),
        )

    @property
    def n(self) -> int:
        """Rows."""
        return self.support.n

    @property
    def mean(self) -> float:
        """Mean of the terms.

        Raises:
            SupportError: there are no rows.
        """
        if not self.n:
            raise SupportError("there are no rows to estimate from")
        return rounded(self.total) / rounded(self.support.mass)

    @property
    def ess(self) -> float:
        """Effective sample size of the weights."""
        return self.support.ess

    @property
    def error(self) -> float:
        """Standard error of the mean; infinite below two rows."""
        if self.n < 2:
            return math.inf
        if (spread := self.spread) is not None:
            return spread.error
        square = ratio_square(self.mean, self.square, self.cross, self.support.mass_square)
        return math.sqrt(square * self.n / (self.n - 1)) / rounded(self.support.mass)

    @property
    def skewness(self) -> float:
        """Skewness of the mean: that of the terms over the root of their number; 0 where nobody asked for it."""
        if self.n < 2:
            return 0.0
        square = ratio_square(self.mean, self.square, self.cross, self.support.mass_square)
        return skewness_of(self.mean, self.cubes, square)

    def interval(self, level: float) -> tuple[float, float]:
        """Return the interval of the mean: Student's, and wider on the side where terms are skewed.

        Infinite below two rows or clusters. `decision.ope.sums.skewness` says how; where few rows carry all of the
        weight it undercovers, which `doubts` of the effective sample size is there to catch.
        """
        if self.n < 2:
            return -np.inf, np.inf
        if (spread := self.spread) is not None:
            if spread.clusters < 2:
                return -np.inf, np.inf
            return skewed(self.mean, spread.error, spread.skewness, n=spread.effective, level=level)
        return skewed(self.mean, self.error, self.skewness, n=self.n, level=level)

    def estimate(self, level: float) -> Estimate:
        """Return the mean with its interval and the doubts of its weights.

        Raises:
            SupportError: there are no rows.
        """
        low, high = self.interval(level)
        return Estimate(self.mean, low, high, level, self.n, self.ess, self.doubts())

    def doubts(self) -> tuple[str, ...]:
        """Return the reasons for which an estimate from these weights should not be trusted."""
        spread = self.spread
        return (*self.support.doubts(), *(() if spread is None else spread.doubts()))

    @property
    def spread(self) -> Spread | None:
        """How the mean errs by its clusters; None where rows are independent, or there are none."""
        if self.clusters is None or not self.n:
            return self.settled
        return self.clusters.spread(np.array([-self.mean, 1.0]) / rounded(self.support.mass))

    def settle(self) -> MeanSums:
        """Return the same with a few plain numbers in place of the clusters' sums; nothing may be added to it."""
        return replace(self, clusters=None, settled=self.spread)


def mean_columns(terms: Floats, counts: Floats | None) -> tuple[Exact, Exact, Exact]:
    """Return the sums of c t, c^2 t and c^2 t^2 of [n] terms."""
    if counts is None:
        total, square = exact_sums([terms, terms**2])
        return total, total, square
    total, cross, square = exact_sums([counts * terms, counts**2 * terms, (counts * terms) ** 2])
    return total, cross, square


def cube_columns(
    terms: Floats, counts: Floats | None, columns: tuple[Exact, Exact, Exact] | None = None
) -> tuple[Exact, Exact, Exact, Exact]:
    """Return the sums of c^3, c^3 t, c^3 t^2 and c^3 t^3 of [n] terms.

    Args:
        terms: [n].
        counts: [n] counts c; None for 1.
        columns: the sums of c t, c^2 t and c^2 t^2 where they are known.
    """
    if counts is None:
        total, _, square = mean_columns(terms, None) if columns is None else columns
        return (float(terms.size),) if terms.size else (), total, square, exact_sum(terms**3)
    cubed = counts**3
    one, first, second, third = exact_sums([cubed, cubed * terms, cubed * terms**2, (counts * terms) ** 3])
    return one, first, second, third


def merged_cubes(one: tuple[int, tuple[Exact, ...]], other: tuple[int, tuple[Exact, ...]]) -> tuple[Exact, ...]:
    """Return the sums of both shards, each given with its rows; empty where one has rows and no such sums."""
    if not all(cubes for rows, cubes in (one, other) if rows):
        return ()
    if not one[1] or not other[1]:
        return one[1] or other[1]
    return tuple(added(a, b) for a, b in zip(one[1], other[1], strict=True))


def ratio_square(value: float, square: Exact, cross: Exact, mass_square: Exact) -> float:
    """Return sum c^2 (t - v)^2 from its parts, 0 where cancellation leaves less than rounding can tell."""
    a, b, d = rounded(square), 2.0 * value * rounded(cross), value**2 * rounded(mass_square)
    out = a - b + d
    return out if out > 1e-14 * max(a, d) else 0.0
