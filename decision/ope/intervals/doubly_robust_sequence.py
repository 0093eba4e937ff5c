"""Doubly robust terms that are bounded below without a bound of the weights, for confidence sequences.

Waudby-Smith, Wu, Ramdas, Karampatziakis, Mineiro 2022 (arXiv 2210.10768, section 3): with rewards in [0, 1] and the
reward model cut to ``q' = min(q, k / w(x, a))``,

    phi = w (r - q') + sum_a pi(a) q'(a)  >= -k,      E[phi | past] = value,

because ``w q' <= k`` and everything else is not negative. The cut is made for every action offered, not only the one
that was drawn, so that both parts speak of the same model: that is what keeps phi unbiased, and why the whole logging
distribution has to be known; where it is not, q' = 0. A difference of two policies with weights w1 and w2 is bounded in
the same way: with ``d = w1 - w2`` the model is cut from above by ``k / d`` where d > 0 and from below by
``1 - k / |d|`` where d < 0, and the sum over actions is at least -1.

The model must not have learned from a row before the row came; fit it on earlier rows or on a separate log.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from decision.batch import Floats
from decision.errors import FieldError, Words
from decision.ope.intervals.confidence_sequence import lower_bound
from decision.ope.rows import Rows, above_zero
from decision.ope.sums.exact import Exact, added, exact_sums, rounded
from decision.ragged import group_sum

LIMIT = 5.0
"""k: a larger one trusts the model on rows of larger weight and pays with a slower start."""


@dataclass(frozen=True, slots=True)
class SequenceSums:
    """Sums of lower and upper terms of a value or of a difference; `+` merges shards.

    Attributes:
        n: rows.
        lower: sums of the lower terms and of their squares.
        upper: the same of the upper terms, whose mean is the value's complement.
        below: no term can be below minus this.
        difference: of two policies: the mean lies in [-1, 1], not in [0, 1].
        low: smallest reward possible.
        high: largest reward possible.
    """

    n: int
    lower: tuple[Exact, Exact]
    upper: tuple[Exact, Exact]
    below: float
    difference: bool
    low: float
    high: float

    def __add__(self, other: SequenceSums) -> SequenceSums:
        return SequenceSums(
            self.n + other.n,
            (added(self.lower[0], other.lower[0]), added(self.lower[1], other.lower[1])),
            (added(self.upper[0], other.upper[0]), added(self.upper[1], other.upper[1])),
            self.below,
            self.difference,
            self.low,
            self.high,
        )

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Return the two-sided interval, in units of the reward; it may be asked for after every row."""
        alpha = (1.0 - level) / 2.0
        smallest = -1.0 if self.difference else 0.0
        ends = [
            lower_bound(
                self.n,
                rounded(total),
                rounded(square),
                below=self.below,
                smallest=smallest,
                largest=1.0,
                alpha=alpha,
            )
            for total, square in (self.lower, self.upper)
        ]
        span = self.high - self.low
        if self.difference:
            return span * ends[0], -span * ends[1]
        return self.low + span * ends[0], self.high - span * ends[1]


def value_terms(rows: Rows, *, low: float, high: float, limit: float = LIMIT) -> tuple[Floats, Floats]:
    """Return [n] lower and [n] upper terms of a policy's value, on the scale where rewards lie in [0, 1].

    Args:
        rows: the log; each of its rows counts once.
        low: smallest reward possible.
        high: largest reward possible.
        limit: k.

    Raises:
        FieldError: the range is empty, a reward lies outside of it, or rows stand for several decisions.
    """
    reward = _scaled(rows, low, high)
    model = _model(rows, low, high)
    weights = _flat_weights(rows)
    return (
        _terms(rows, reward, model, weights, rows.target, limit),
        _terms(rows, 1.0 - reward, None if model is None else 1.0 - model, weights, rows.target, limit),
    )


def difference_terms(new: Rows, old: Rows, *, low: float, high: float, limit: float = LIMIT) -> tuple[Floats, Floats]:
    """Return [n] lower and [n] upper terms of the difference `new` minus `old` on the same log; as `value_terms`.

    Raises:
        FieldError: the logging distributions are not known, too.
    """
    above_zero(limit, "limit")
    reward, model = _scaled(new, low, high), _model(new, low, high)
    if not len(new):
        return np.zeros(0), np.zeros(0)
    pmf = new.target - old.target
    with np.errstate(divide="ignore", invalid="ignore"):
        flat = np.where(pmf == 0, 0.0, pmf / new.whole_logging())
        bound = limit / np.abs(flat)
    model = np.zeros(len(pmf)) if model is None else model
    below, above = np.minimum(model, bound), np.maximum(model, 1.0 - bound)
    out: list[Floats] = []
    for sign, positive in ((1.0, flat > 0), (-1.0, flat < 0)):
        cut = np.where(positive, below, above)
        drawn = sign * (new.weight - old.weight)
        out.append(drawn * (reward - cut[new.chosen]) + sign * group_sum(pmf * cut, new.offsets))
    return out[0], out[1]


def sequence_sums(
    terms: tuple[Floats, Floats], *, low: float, high: float, below: float, difference: bool = False
) -> SequenceSums:
    """Return the sums of lower and upper terms.

    Args:
        terms: [n] and [n], of `value_terms` or `difference_terms`.
        low: smallest reward possible.
        high: largest reward possible.
        below: `limit` for a value, ``limit + 1`` for a difference.
        difference: whether they are of a difference.

    Raises:
        FieldError: a term is below ``-below``.
    """
    lower, upper = terms
    smallest = min(float(lower.min(initial=math.inf)), float(upper.min(initial=math.inf)))
    if smallest < -below - 1e-9:
        raise FieldError("below", wanted=f"{-smallest} or more", got=below)
    sums = exact_sums([lower, lower**2, upper, upper**2])
    return SequenceSums(len(lower), (sums[0], sums[1]), (sums[2], sums[3]), below, difference, low, high)


def _terms(
    rows: Rows, reward: Floats, model: Floats | None, weights: Floats | None, pmf: Floats, limit: float
) -> Floats:
    above_zero(limit, "limit")
    if model is None or weights is None or not len(rows):
        return rows.weight * reward
    with np.errstate(divide="ignore"):
        cut = np.minimum(model, limit / weights)
    return rows.weight * (reward - cut[rows.chosen]) + group_sum(pmf * cut, rows.offsets)


def _flat_weights(rows: Rows) -> Floats | None:
    # Of every offered action; infinite weights stand for actions that the log never draws.
    if rows.logging is None:
        return None
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(rows.target > 0, rows.target / rows.logging, 0.0)


def _model(rows: Rows, low: float, high: float) -> Floats | None:
    return None if rows.expected is None else np.clip((rows.expected - low) / (high - low), 0.0, 1.0)


def _scaled(rows: Rows, low: float, high: float) -> Floats:
    if not low < high:
        raise FieldError("low", wanted=f"below high = {high}", got=low)
    if rows.counts is not None:
        raise FieldError(
            "counts", wanted="those of a log that kept every decision", got=Words("of rows that stand for several")
        )
    if len(rows) and not (float(rows.reward.min()) >= low and float(rows.reward.max()) <= high):
        got = (float(rows.reward.min()), float(rows.reward.max()))
        raise FieldError("reward", wanted=f"numbers in [{low}, {high}]", got=got)
    return (rows.reward - low) / (high - low)
