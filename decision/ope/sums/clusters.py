"""What rows of one cluster sum to, where they depend on one another: a user's decisions are not so many users.

A statistic that is a smooth function of sums errs as the sum of what each cluster adds to its linear part, and clusters
are independent (Liang and Zeger 1986, Biometrika 73, "Longitudinal data analysis using generalized linear models").
Independent clusters may be put together into larger ones, which are independent again: so any number of users falls
into a fixed number of clusters by a hash (random groups: Wolter 2007, "Introduction to variance estimation", ch. 2).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from decision.batch import Floats, Ints
from decision.ope.sums.exact import ExactArray, rounded_all
from decision.split import fold_of

CLUSTERS = 4_096
"""So many tell the variance to 2%, and fewer users nearly all have one of their own."""


@dataclass(frozen=True, slots=True, eq=False)
class ClusterSums:
    """Sums of k columns by cluster; `+` merges shards, to the same bits in any order.

    Attributes:
        columns: [k, `CLUSTERS`]; the first counts rows.
    """

    columns: ExactArray

    @staticmethod
    def of(columns: Sequence[Floats], cluster: Ints) -> ClusterSums:
        """Return the sums of k columns of [n] terms, the first of which counts rows, by [n] numbers of clusters."""
        return ClusterSums(ExactArray.of(columns, cluster, CLUSTERS))

    def __add__(self, other: ClusterSums) -> ClusterSums:
        return ClusterSums(self.columns + other.columns)

    def spread(self, gradient: Floats) -> Spread:
        """Return how a statistic errs whose [k] slopes at the sums are `gradient`.

        The slopes are orthogonal to the sums, as those of a ratio are: the clusters' parts then add up to 0.
        """
        sums = rounded_all(self.columns.wholes())
        sums = sums[:, sums[0] != 0.0]
        rows, part = sums[0], gradient @ sums
        square, count = float(np.square(part).sum()), len(part)
        return Spread(
            error=math.sqrt(square * count / (count - 1)) if count > 1 else math.inf,
            skewness=float((part**3).sum()) / square**1.5 if square > 0.0 else 0.0,
            clusters=count,
            effective=float(rows.sum() ** 2 / np.square(rows).sum()) if count else 0.0,
        )


@dataclass(frozen=True, slots=True)
class Spread:
    """How a statistic of clustered rows errs.

    Attributes:
        error: its standard error; infinite below two clusters.
        skewness: its skewness; 0 where it has no spread.
        clusters: that have rows.
        effective: how many of equal size tell as much of a variance, (sum n)^2 / sum n^2; 0 without any.
    """

    error: float
    skewness: float
    clusters: int
    effective: float

    def doubts(self) -> tuple[str, ...]:
        """Return the reasons for which so few clusters should not be trusted."""
        few = self.effective < 30.0
        return (f"the decisions are those of {self.effective:.0f} users, in effect",) if few else ()


def clusters_of(subjects: Sequence[str], salt: str) -> Ints:
    """Return [n] the cluster of each subject, by a hash."""
    return fold_of(subjects, f"clusters {salt}", CLUSTERS)


def merged_clusters(one: tuple[int, ClusterSums | None], other: tuple[int, ClusterSums | None]) -> ClusterSums | None:
    """Return the sums of both shards, each given with its rows; None where one has rows and no such sums."""
    held = [clusters for rows, clusters in (one, other) if rows]
    if not held or any(clusters is None for clusters in held):
        return None
    first, *rest = (clusters for clusters in held if clusters is not None)
    return first + rest[0] if rest else first
