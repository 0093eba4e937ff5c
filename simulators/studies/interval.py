"""What studies report over seeds: 95% intervals of means, of shares of runs and of medians of times; worst members."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

from decision.batch import Floats

LEVEL = 0.95

Interval = list[float | None]
"""[low, high]; None where the data do not bound it."""


def of_mean(values: Sequence[float], *, low: float = -np.inf, high: float = np.inf) -> Interval:
    """Return Student's interval of the mean, cut to what is possible; [None, None] for fewer than two values.

    Args:
        values: one per seed.
        low: smallest value possible.
        high: largest value possible.
    """
    n = len(values)
    if n < 2:
        return [None, None]
    half = float(stats.t.ppf(0.5 + LEVEL / 2.0, n - 1) * np.std(values, ddof=1) / np.sqrt(n))
    middle = float(np.mean(values))
    return [max(middle - half, low), min(middle + half, high)]


def of_share(hits: int, runs: int) -> Interval:
    """Return the interval of Clopper and Pearson (1934) of a probability, [None, None] without runs."""
    if runs == 0:
        return [None, None]
    found = stats.binomtest(hits, runs).proportion_ci(LEVEL, method="exact")
    return [float(found.low), float(found.high)]


def of_median(values: Sequence[float | None]) -> Interval:
    """Return the interval of the median between order statistics; None stands for "not within the run".

    The ranks are the binomial ones, so nothing is assumed of the distribution. An end that the runs do not reach, or
    for which there are too few of them, is None.
    """
    n = len(values)
    ordered = sorted(np.inf if value is None else float(value) for value in values)
    below = int(stats.binom.ppf((1.0 - LEVEL) / 2.0, n, 0.5)) if n else 0
    # P(fewer than `below` values lie under the median) <= 2.5%, likewise from above.
    low, high = below - 1, n - below
    if low < 0 or high >= n:
        return [None, None]
    return [value if np.isfinite(value) else None for value in (ordered[low], ordered[high])]


def median(values: Sequence[float | None]) -> float | None:
    """Return the median with None as later than everything; None when that is the median."""
    middle = float(np.median([np.inf if value is None else value for value in values])) if values else np.inf
    return middle if np.isfinite(middle) else None


def worst_of(shares: Sequence[Mapping[str, float]]) -> tuple[str, float]:
    """Return the member of a set of simulators with the least mean share of its optimum, and that mean.

    Args:
        shares: one mapping per seed, of the shares by name; a seed may lack a member.
    """
    names = {name: None for run in shares for name in run}
    means = {name: float(np.mean([run[name] for run in shares if name in run])) for name in names}
    worst = min(means, key=lambda name: means[name])
    return worst, means[worst]


def of_users(values: Floats, rng: np.random.Generator) -> list[float]:
    """Return the 95% interval of the mean of `values` [seeds, users], seeds and then users drawn again."""
    seeds, users = values.shape
    means = np.empty(1000)
    for number in range(len(means)):
        picked = rng.integers(0, seeds, seeds)
        means[number] = np.mean([values[seed, rng.integers(0, users, users)].mean() for seed in picked])
    return [float(end) for end in np.quantile(means, (0.025, 0.975))]
