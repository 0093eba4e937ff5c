"""The bootstrap of smooth functions of sums, in one pass over the log.

Rows fall into G random groups, of each of which only the sums are kept; a replicate draws G groups with replacement and
adds up their sums. As a group of random rows is itself a draw from the log, the replicates have the spread of the
ordinary bootstrap (Efron 1979; for groups of rows Kleiner, Talwalkar, Sarkar, Jordan 2014), up to a relative error of
``1 / sqrt(2 G)`` in the width, and cost G rather than n each. Where rows are fewer than groups this is the ordinary
bootstrap of rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from decision.batch import Floats, Ints
from decision.errors import FieldError
from decision.ope.sums.exact import ExactArray, rounded_all

GROUPS = 1_024
_AT_ONCE = 256


@dataclass(frozen=True, slots=True, eq=False)
class GroupSums:
    """Sums of k columns by group of rows; `+` merges shards, to the same bits in any order.

    Attributes:
        exact: [k, G].
    """

    exact: ExactArray

    @staticmethod
    def of(columns: Floats | Sequence[Floats], group: Ints, groups: int = GROUPS) -> GroupSums:
        """Return the sums of k columns ([n]) by `group` ([n], in 0..groups-1), which has to be independent of them."""
        return GroupSums(ExactArray.of(columns, group, groups))

    def __add__(self, other: GroupSums) -> GroupSums:
        return GroupSums(self.exact + other.exact)

    @property
    def sums(self) -> Floats:
        """[k, G] the sums, rounded."""
        return rounded_all(self.exact.wholes())


def replicates(sums: Floats, rng: np.random.Generator, count: int = 1_000) -> Floats:
    """Return [count, k] sums of resampled logs from [k, G] sums by group.

    Raises:
        FieldError: fewer than 2 replicates are asked for.
    """
    if count < 2:
        raise FieldError("count", wanted="2 replicates or more", got=count)
    groups = sums.shape[1]
    share = np.full(groups, 1.0 / groups)
    out = np.empty((count, len(sums)))
    for start in range(0, count, _AT_ONCE):
        size = min(_AT_ONCE, count - start)
        out[start : start + size] = rng.multinomial(groups, share, size=size) @ sums.T
    return out


def percentiles(values: Floats, level: float) -> tuple[float, float]:
    """Return the ends between which `level` of the replicates lie, leaving out those that are NaN."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return -np.inf, np.inf
    low, high = np.quantile(finite, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return float(low), float(high)


def bootstrap(
    sums: GroupSums,
    statistic: Callable[[Floats], Any],
    rng: np.random.Generator,
    *,
    count: int = 1_000,
    level: float = 0.95,
) -> tuple[float, float]:
    """Return the percentile interval of ``statistic([B, k] sums) -> [B]``."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return percentiles(statistic(replicates(sums.sums, rng, count)), level)
