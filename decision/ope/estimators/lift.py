"""Paired lift: how much better one policy is than another on the same rows.

The doubly robust terms of both are subtracted row by row, so the residuals they share cancel and the interval is far
narrower than two intervals side by side. Where too few rewards count for one of them, the interval is that of a
confidence sequence: it needs the range of the rewards and the whole logging distribution, and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from decision.batch import Floats, Interactions, Ints
from decision.ope.estimate import Estimate
from decision.ope.estimators.dr import dr_terms
from decision.ope.estimators.snips import FEWEST, SnipsSums, rewarded
from decision.ope.intervals.doubly_robust_sequence import LIMIT, SequenceSums, difference_terms, sequence_sums
from decision.ope.rows import Rows
from decision.ope.sums.means import MeanSums
from decision.ope.weights import weights_of
from decision.options import Range
from decision.ragged import group_sum

SWITCH_AT = 10.0
"""Weight beyond which Switch-DR leaves a row to the reward model."""
RARE = "fewer than {:.0f} rewarded decisions count: {}"


@dataclass(frozen=True, slots=True)
class Lift:
    """A paired difference as sums; `+` merges shards.

    Attributes:
        sums: of the differences, with the new policy's weights.
        new: weights and rewards for the new policy.
        old: weights and rewards for the old policy.
        reward: the rewards that are possible.
        sequence: terms with a bound, for few rewards; None where no distribution of the log is known whole.
    """

    sums: MeanSums
    new: SnipsSums
    old: SnipsSums
    reward: Range
    sequence: SequenceSums | None = None

    def __add__(self, other: Lift) -> Lift:
        both = None if self.sequence is None or other.sequence is None else self.sequence + other.sequence
        return Lift(self.sums + other.sums, self.new + other.new, self.old + other.old, self.reward, both)

    def settle(self) -> Lift:
        """Return the same in plain numbers; nothing may be added to it."""
        return replace(self, sums=self.sums.settle())

    @property
    def ess(self) -> float:
        """Effective sample size, the smaller one of the two policies'."""
        return min(self.new.moments.support.ess, self.old.moments.support.ess)

    @property
    def rewarded(self) -> float:
        """Effective number of decisions that the rewards of either policy come from, the smaller one."""
        low, high = self.reward.low, self.reward.high
        return min(rewarded(part, low=low, high=high) for part in (self.new, self.old))

    def estimate(self, *, level: float = 0.95) -> Estimate:
        """Return the lift with its two-sided interval, unbounded where too few rewards count and no bound is known."""
        found = replace(self.sums.estimate(level), ess=self.ess)
        if self.rewarded >= FEWEST or not self._differs:
            return found
        if self.sequence is None:
            doubt = RARE.format(FEWEST, "and the log does not hold its distributions whole")
            return with_reasons(replace(found, low=-np.inf, high=np.inf), doubt)
        low, high = self.sequence.interval(level)
        return with_reasons(replace(found, low=low, high=high), RARE.format(FEWEST, "a bounded interval"))

    @property
    def _differs(self) -> bool:
        return bool(self.sums.total or self.sums.square)  # a policy is no better than itself, however few rewards

    def lower_bound(self, alpha: float) -> float:
        """Return the one-sided lower bound at error probability `alpha`."""
        return self.estimate(level=1.0 - 2.0 * alpha).low


def lift_of(
    interactions: Interactions,
    new: Floats,
    old: Floats,
    expected: Floats,
    reward: Range | None = None,
    *,
    clusters: Ints | None = None,
) -> Lift:
    """Return the paired doubly robust lift of `new` over `old`.

    Args:
        interactions: rows that neither the policies nor the reward model were trained on.
        new: [m] pmf of the new policy, flat.
        old: [m] pmf of the old policy, flat.
        expected: [m] reward model, flat.
        reward: the rewards that are possible, to which those of the bounded interval are cut; None for [0, 1], or
            further where rewards are.
        clusters: [n] cluster of each row, whose rows depend on one another; None where rows are independent. The
            bounded interval is that of the mean of what each row was worth given those before it, either way.

    Raises:
        FieldError: shapes differ or a propensity is not in (0, 1].
    """
    difference = dr_terms(interactions, new, expected) - dr_terms(interactions, old, expected)
    w_new, w_old = weights_of(interactions, new), weights_of(interactions, old)
    reward = reward or _range(interactions.reward)
    return Lift(
        MeanSums.of(difference, w_new, cubes=True, clusters=clusters),
        SnipsSums.of(w_new, interactions.reward),
        SnipsSums.of(w_old, interactions.reward),
        reward,
        _sequence(interactions, new, old, expected, reward),
    )


def switched_lift_of(
    interactions: Interactions,
    new: Floats,
    old: Floats,
    expected: Floats,
    reward: Range | None = None,
    *,
    largest: float = SWITCH_AT,
    clusters: Ints | None = None,
) -> Lift:
    """Return the paired Switch-DR lift: residuals count only where neither weight is above `largest`.

    What lies beyond is left to the reward model (Wang, Agarwal, Dudik 2017, arXiv 1612.01205): far narrower than
    `lift_of`, and biased where that model is; arguments as there. Where few rewards count it says nothing.
    """
    w_new, w_old = weights_of(interactions, new), weights_of(interactions, old)
    direct = group_sum((new - old) * expected, interactions.batch.offsets)
    residual = interactions.reward - expected[interactions.chosen]
    kept = np.maximum(w_new, w_old) <= largest
    terms = direct + np.where(kept, (w_new - w_old) * residual, 0.0)
    return Lift(
        MeanSums.of(terms, np.where(kept, w_new, 0.0), cubes=True, clusters=clusters),
        SnipsSums.of(w_new, interactions.reward),
        SnipsSums.of(w_old, interactions.reward),
        reward or _range(interactions.reward),
    )


def _sequence(
    interactions: Interactions, new: Floats, old: Floats, expected: Floats, reward: Range
) -> SequenceSums | None:
    if len(interactions) and np.isnan(interactions.pmf).any():
        return None
    cut = replace(interactions, reward=np.clip(interactions.reward, reward.low, reward.high))
    rows = Rows.of(cut, new, expected)
    terms = difference_terms(rows, Rows.of(cut, old, expected), low=reward.low, high=reward.high)
    return sequence_sums(terms, low=reward.low, high=reward.high, below=LIMIT + 1.0, difference=True)


def _range(reward: Floats) -> Range:
    return Range(low=min(0.0, float(reward.min(initial=0.0))), high=max(1.0, float(reward.max(initial=1.0))))


def with_reasons(estimate: Estimate, *reasons: str) -> Estimate:
    """Return `estimate` with further reasons not to trust it."""
    return replace(estimate, reasons=(*estimate.reasons, *reasons))
