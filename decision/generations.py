"""What a generation learns from: which rows of the log, and how much each of them counts.

A model trained only on what the last one chose to show forgets why the rest was bad (Vangara and Egg 2024, arXiv
2412.00569, describe it for payments). These are the cures, from the log alone: rows of several generations, fading with
age; a reservoir of what was drawn uniformly; weights against the logging policy; all explicit, so that a manifest can
repeat them.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from decision.batch import Floats, Interactions, Ints
from decision.errors import FieldError
from decision.exploration.sigma import Spread
from decision.options import DataRules
from decision.ragged import group_min

NEGLIGIBLE = 1e-3
"""Weight below which a row is left out."""


def ages(ends: Sequence[int], rows: int, *, minimum: int, of: Ints | None = None) -> Ints:
    """Return [k] int64 how many generations lie between each row and the newest.

    Args:
        ends: rows, counted from the oldest, that each earlier training had in sight.
        rows: number of rows, oldest first.
        minimum: rows that a generation has at least; an end closer to the next one is passed over.
        of: [k] int64 the rows in question; None for all.
    """
    kept: list[int] = []
    following = rows
    for end in sorted(set(ends), reverse=True):
        if 0 < end < rows and following - end >= minimum:
            kept.append(end)
            following = end
    of = np.arange(rows) if of is None else of
    return len(kept) - np.searchsorted(np.array(kept[::-1], dtype=np.int64), of, side="right")


def sampling_rates(rows: Floats, weight: Floats, most: int) -> Floats:
    """Return [d] the share of each day's rows that is kept, so that `most` are kept of all days together.

    A day's share is min(1, c weight), with the c that makes them `most`. What counts less is needed less: then the rows
    of all days whose share is below 1 count alike, weight / share = 1 / c, and no other shares of as many rows give
    weighted sums of a smaller variance (Neyman 1934, equal spreads).

    Args:
        rows: [d] how many rows each day has, 0 or more.
        weight: [d] how much a row of the day counts, above 0.
        most: rows to be kept, on average; 0 for all.
    """
    if not most or float(rows.sum()) <= most:
        return np.ones(len(rows))
    order = np.argsort(-weight, kind="stable")
    n, w = rows[order], weight[order]
    left = most - (np.cumsum(n) - n)  # for this day and those that count less, if all before it are kept whole
    c = left / np.maximum(np.cumsum((n * w)[::-1])[::-1], 1e-300)
    first = int(np.flatnonzero(c * w <= 1.0)[0])
    return np.minimum(1.0, c[first] * weight)


def training_weights(interactions: Interactions, age: Ints, rules: DataRules) -> Floats:
    """Return [n] how much every row counts, 0 for those that are left out.

    A row beyond the window counts as far as it belongs to the uniform stratum: a policy that gives every action at
    least u / K draws uniformly with probability u, and given the action that was drawn, the chance that it was such a
    draw is (u / K) / p. So no flag has to be logged, and nothing is lost by drawing one.

    Args:
        interactions: the log; its pmf must be finite where the reservoir is used.
        age: [n] generations between the row and the newest, 0 or more.
        rules: the rules.

    Raises:
        FieldError: shapes differ, or an age is negative.
    """
    if age.shape != (len(interactions),) or (age.size and int(age.min()) < 0):
        raise FieldError("age", wanted=f"[{len(interactions)}] generations of 0 or more", got=age)
    offsets, p = interactions.batch.offsets, interactions.propensity
    window = rules.generations or np.iinfo(np.int64).max
    if rules.warm_start:
        window = 1
    inside = age < window
    weight = inside.astype(np.float64)
    if rules.reservoir and rules.generations:
        kept = ~inside & (age < window + rules.reservoir)
        share = group_min(interactions.pmf, offsets) / p if len(interactions) else p
        weight[kept] = np.nan_to_num(share[kept], nan=0.0)
    weight *= rules.decay**age
    if rules.importance != "none":
        against = 1.0 / (p * np.diff(offsets))
        weight *= np.minimum(np.sqrt(against) if rules.importance == "sqrt" else against, rules.clip)
    weight[weight < NEGLIGIBLE] = 0.0
    return weight


def effective_rows(weight: Floats) -> float:
    """Return the number of rows that [n] weights amount to, for `falcon`: their sum over the largest."""
    return float(weight.sum() / weight.max()) if weight.size and weight.max() > 0 else 0.0


class Balance(msgspec.Struct, frozen=True, kw_only=True):
    """How one-sided the rewards of a training are; a good policy's log has few failures to learn from.

    Attributes:
        positive_rate: weighted share of rewards above the middle of the range.
        minority_rows: effective rows of the rarer side.
        effective_sample_size: (sum w)^2 / sum w^2.
        importance_ess: share of the rows that weights 1 / (p K) leave effective: 1 for a uniform log.
    """

    positive_rate: float
    minority_rows: float
    effective_sample_size: float
    importance_ess: float


class Tally:
    """Sums over the rows of a training, chunk by chunk.

    Rows of a sample stand for 1 / rate rows each, their `weights`: sums are estimates of those over all rows.

    Attributes:
        rows: how many were looked at.
        counted: those with a weight above 0.
        spread: how their rewards lie about their mean.
    """

    def __init__(self, *, low: float = 0.0, high: float = 1.0) -> None:
        """Take the range of rewards; its middle separates success from failure."""
        self._middle = 0.5 * (low + high)
        self.spread = Spread(low, high)
        self.rows = self.counted = 0
        self._uniform = 0.0
        self._stood_for = self._total = self._largest = self._squares = self._positive = self._reward = 0.0
        self._against = self._against_squares = 0.0
        self._spread, self._sampled_spread = np.zeros(3), np.zeros(3)

    def add(self, interactions: Interactions, weight: Floats) -> None:
        """Add n rows.

        Args:
            interactions: the rows.
            weight: [n] their training weights, without what they stand for.
        """
        times, reward, offsets = interactions.weights, interactions.reward, interactions.batch.offsets
        k = np.diff(offsets)
        against = 1.0 / (interactions.propensity * k)
        if k.size:
            part = k * np.nan_to_num(group_min(interactions.pmf, offsets), nan=0.0)
            self._uniform += float((weight * times) @ part)
        self.spread.add(reward, weight * times)
        self.rows += len(interactions)
        self.counted += int(np.sum(weight > 0))
        self._stood_for += float(times.sum())
        self._total += float(weight @ times)
        self._largest = max(self._largest, float(weight.max(initial=0.0)))
        self._squares += float((weight * times) @ weight)
        self._positive += float((weight * times) @ (reward > self._middle))
        self._reward += float(times @ reward)
        self._against += float(times @ against)
        self._against_squares += float((times * against) @ against)
        powers = np.stack((np.ones(len(interactions)), reward - self._middle, (reward - self._middle) ** 2))
        self._spread += powers @ (weight**2 * times)
        self._sampled_spread += powers @ (weight * times) ** 2

    @property
    def effective_rows(self) -> float:
        """The number of rows that the weights amount to: their sum over the largest.

        Of a sample, less what it costs: the variance of a weighted sum of rewards about their mean, as it would be with
        all rows, over what it is. A sample of what is common beside all that is rare costs little.
        """
        return self._total / self._largest * self._efficiency() if self._largest > 0 else 0.0

    def _efficiency(self) -> float:
        if self.rows == self._stood_for:
            return 1.0
        mean = self._spread[1] / self._spread[0]
        about = np.array([mean**2, -2.0 * mean, 1.0])
        whole, sampled = float(about @ self._spread), float(about @ self._sampled_spread)
        if sampled <= 1e-9 * float(self._sampled_spread[2]):  # all rewards are the same
            return float(self._spread[0] / self._sampled_spread[0])
        return min(1.0, whole / sampled)

    @property
    def uniform_rows(self) -> float:
        """How many of the effective rows are uniform draws: each by the part of its distribution that is uniform."""
        return self._uniform / self._largest if self._largest > 0 else 0.0

    @property
    def mean_reward(self) -> float:
        """Mean reward of the rows, one or more, whatever they weigh."""
        return self._reward / self._stood_for

    def balance(self) -> Balance:
        """Return the diagnostics of the rows; some weight is not 0."""
        positive = self._positive / self._total
        return Balance(
            positive_rate=positive,
            minority_rows=min(positive, 1.0 - positive) * self._total,
            effective_sample_size=self._total**2 / self._squares,
            importance_ess=self._against**2 / self._against_squares / self._stood_for,
        )
