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

    Attributes:
        rows: how many were looked at.
        counted: those with a weight above 0.
    """

    def __init__(self, *, middle: float = 0.5) -> None:
        """Take the reward that separates success from failure."""
        self._middle = middle
        self.rows = self.counted = 0
        self._total = self._largest = self._squares = self._positive = self._reward = 0.0
        self._against = self._against_squares = 0.0

    def add(self, interactions: Interactions, weight: Floats) -> None:
        """Add n rows.

        Args:
            interactions: the rows.
            weight: [n] their training weights.
        """
        against = 1.0 / (interactions.propensity * np.diff(interactions.batch.offsets))
        self.rows += len(interactions)
        self.counted += int(np.sum(weight > 0))
        self._total += float(weight.sum())
        self._largest = max(self._largest, float(weight.max(initial=0.0)))
        self._squares += float(weight @ weight)
        self._positive += float(weight @ (interactions.reward > self._middle))
        self._reward += float(interactions.reward.sum())
        self._against += float(against.sum())
        self._against_squares += float(against @ against)

    @property
    def effective_rows(self) -> float:
        """The number of rows that the weights amount to, as `effective_rows` of all of them."""
        return self._total / self._largest if self._largest > 0 else 0.0

    @property
    def mean_reward(self) -> float:
        """Mean reward of the rows, one or more, whatever they weigh."""
        return self._reward / self.rows

    def balance(self) -> Balance:
        """Return the diagnostics of the rows; some weight is not 0."""
        positive = self._positive / self._total
        return Balance(
            positive_rate=positive,
            minority_rows=min(positive, 1.0 - positive) * self._total,
            effective_sample_size=self._total**2 / self._squares,
            importance_ess=self._against**2 / self._against_squares / self.rows,
        )
