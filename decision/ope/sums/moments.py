"""Sums of k columns and of their products: all that a smooth function of sums and its interval need.

Every estimator here is a function g of sums that does not change when all of them are scaled, a ratio. Its variance by
the delta method is then ``h' S h`` with h the gradient of g at the sums and S the matrix of summed products, without
centring, because h is orthogonal to the sums themselves (Euler). That is the algebra that dividing each row by the mean
weight before taking a standard deviation gets wrong.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from decision.batch import Floats, Ints
from decision.ope.estimate import Estimate
from decision.ope.sums.clusters import ClusterSums, merged_clusters
from decision.ope.sums.exact import Exact, added, exact_sum, exact_sums, rounded
from decision.ope.sums.means import Support


@dataclass(frozen=True, slots=True)
class Moments:
    """Sums of k columns and their products; `+` merges shards.

    Attributes:
        support: sums of the importance weights.
        first: [k] sums of the columns.
        second: [k (k + 1) / 2] sums of products, by rows of the upper triangle.
        clusters: the columns' sums by cluster; None where rows are independent.
    """

    support: Support
    first: tuple[Exact, ...]
    second: tuple[Exact, ...]
    clusters: ClusterSums | None = None

    @staticmethod
    def of(
        columns: Sequence[Floats], weights: Floats, counts: Floats | None = None, clusters: Ints | None = None
    ) -> Moments:
        """Return the sums of k columns.

        Args:
            columns: k of [n] terms.
            weights: [n], for the doubts.
            counts: [n] how many times each row counts; None for once.
            clusters: [n] cluster of each row, whose rows depend on one another; None where rows are independent.
        """
        each = list(columns) if counts is None else [column * counts for column in columns]
        first = exact_sums(each)
        ones = [bool((column == 1.0).all()) for column in each]  # a product with them is the other column, summed above
        second: list[Exact] = []
        for i, one in enumerate(each):
            for j in range(i, len(each)):
                alone = j if ones[i] else i if ones[j] else None
                second.append(exact_sum(one * each[j]) if alone is None else first[alone])
        by_cluster = None if clusters is None else ClusterSums.of([np.ones(len(weights)), *each], clusters)
        return Moments(Support.of(weights, counts), tuple(first), tuple(second), by_cluster)

    def __add__(self, other: Moments) -> Moments:
        return Moments(
            self.support + other.support,
            tuple(added(a, b) for a, b in zip(self.first, other.first, strict=True)),
            tuple(added(a, b) for a, b in zip(self.second, other.second, strict=True)),
            merged_clusters((self.support.n, self.clusters), (other.support.n, other.clusters)),
        )

    @property
    def totals(self) -> Floats:
        """[k] sums of the columns."""
        return np.array([rounded(total) for total in self.first])

    def variance(self, gradient: Floats) -> float:
        """Return h' S h for [k] gradient h, 0 where cancellation leaves less than rounding can tell.

        Where rows depend on one another, S is that of the clusters' sums.
        """
        if self.clusters is not None:
            return self.clusters.spread(np.array([0.0, *gradient])).error ** 2
        k = len(self.first)
        products = np.zeros((k, k))
        products[np.triu_indices(k)] = [rounded(total) for total in self.second]
        parts = (products + np.triu(products, 1).T) * np.outer(gradient, gradient)
        total = float(parts.sum())
        return total if total > 1e-14 * float(np.abs(parts).max(initial=0.0)) else 0.0

    def estimate(self, value: float, gradient: Floats, level: float) -> Estimate:
        """Return `value` with the normal interval of the delta method, or Student's of clusters; infinite below two."""
        n = self.support.n
        half = math.inf
        if n > 1:
            half = self._quantile(level) * math.sqrt(self.variance(gradient))
        return Estimate(value, value - half, value + half, level, n, self.support.ess, self.support.doubts())

    def _quantile(self, level: float) -> float:
        if self.clusters is None:
            return float(special.ndtri(0.5 + level / 2.0))
        effective = self.clusters.spread(np.zeros(len(self.first) + 1)).effective
        return float(special.stdtrit(effective - 1.0, 0.5 + level / 2.0)) if effective > 1.0 else math.inf
