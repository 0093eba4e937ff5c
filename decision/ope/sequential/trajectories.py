"""Trajectories: decisions that follow each other, each with a reward; importance sampling step by step.

Arrays are flat over steps, cut by offsets: trajectories may end at different times. With W_t the product of the weights
of the steps up to t and g the discount,

- PDIS: ``sum_t g^t W_t r_t`` (Precup, Sutton, Singh 2000)
- weighted PDIS: each step's weights divided by their mean over trajectories (the same, section 4)
- DR: ``sum_t g^t (W_{t-1} v_t + W_t (r_t - q_t))`` (Jiang and Li 2016, arXiv 1511.03722; Thomas and Brunskill 2016)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import special

from decision.batch import Floats, Ints
from decision.errors import FieldError, SupportError
from decision.ope.estimate import Estimate
from decision.ope.intervals.bootstrap import GROUPS, GroupSums
from decision.ope.sequential.slates import cascade_dr_terms, discounts, running_products, slate_weights
from decision.ope.sums.means import MeanSums, Support

MAX_STEPS = 1_000
FARTHEST = 20
"""Steps that `steps_of` never goes beyond."""
_PER_STEP = 50.0
"""Trajectories wanted per effective draw of one."""


def steps_of(trajectories: int, squared: float) -> int:
    """Return how many first steps can be weighed as one trajectory, from 1 to 20.

    A policy that agrees with the log on one draw in K agrees with H draws on one trajectory in K^H, so H is the
    greatest with trajectories >= 50 K^H.

    Args:
        trajectories: how many there are.
        squared: K, the mean squared weight of a step over the square of its mean, 1 or more.
    """
    if trajectories <= _PER_STEP:
        return 1
    if squared <= 1.0:
        return FARTHEST
    return int(np.clip(np.log(trajectories / _PER_STEP) / np.log(squared), 1, FARTHEST))


def logger_scales(weights: Floats, logger: Ints) -> Floats:
    """Return [n] what to multiply trajectories' weights by, so that whoever supports the policy better counts for more.

    A logger's weights are divided by their mean square, which stands for its variance (Agarwal, Basu, Schnabel,
    Joachims 2017, arXiv 1703.06180): a few accidents of one that hardly ever agrees do not outweigh all of another's.

    Args:
        weights: [n] of trajectories, as far as they are weighed.
        logger: [n] int64 in 0..k-1, who drew them.
    """
    count = np.maximum(np.bincount(logger), 1)
    square = np.maximum(np.bincount(logger, weights=np.square(weights)) / count, 1.0)  # its expectation is 1 or more
    scale = (1.0 / square)[logger]
    return scale / scale.mean()


def pdis_terms(weights: Floats, reward: Floats, offsets: Ints, *, gamma: float = 1.0) -> Floats:
    """Return [n] terms of per-decision importance sampling.

    Args:
        weights: [m] evaluation over logged probability of each step's action.
        reward: [m].
        offsets: [n + 1], every trajectory has one step or more.
        gamma: discount, in [0, 1].
    """
    return np.add.reduceat(discounts(offsets, gamma) * running_products(weights, offsets) * reward, offsets[:-1])


def trajectory_dr_terms(
    weights: Floats, reward: Floats, expected: Floats, direct: Floats, offsets: Ints, *, gamma: float = 1.0
) -> Floats:
    """Return [n] doubly robust terms.

    Args:
        weights: [m] evaluation over logged probability of each step's action.
        reward: [m].
        expected: [m] q, model of the discounted reward from the step on, at the action logged.
        direct: [m] v, its mean over the evaluation policy's actions.
        offsets: [n + 1].
        gamma: discount, in [0, 1].
    """
    scale = discounts(offsets, gamma)
    return cascade_dr_terms(weights, scale * reward, scale * expected, scale * direct, offsets)


def trajectory_sums(terms: Floats, weights: Floats, offsets: Ints) -> MeanSums:
    """Return the mergeable sums of [n] terms; `weights` ([m], by step) are for the doubts."""
    return MeanSums.of(terms, slate_weights(weights, offsets))


@dataclass(frozen=True, slots=True)
class WeightedSums:
    """Sums of weighted PDIS by random group of trajectories; `+` merges shards.

    Attributes:
        groups: [2 T, G] sums of W_t r_t, then of W_t, by step; a trajectory that has ended keeps its weight.
        steps: T.
        whole: sums of the weights of whole trajectories, for the doubts.
    """

    groups: GroupSums
    steps: int
    whole: Support

    @staticmethod
    def of(
        weights: Floats, reward: Floats, offsets: Ints, group: Ints, *, steps: int, groups: int = GROUPS
    ) -> WeightedSums:
        """Return the sums of trajectories.

        Args:
            weights: [m] evaluation over logged probability of each step's action.
            reward: [m].
            offsets: [n + 1], every trajectory has one step or more.
            group: [n] int64 in 0..groups-1, independent of what happened.
            steps: T, the length of the log's longest trajectory or more, at most 1,000.
            groups: G.

        Raises:
            FieldError: a trajectory is longer than `steps`, or `steps` above 1,000.
        """
        sizes = np.diff(offsets)
        if not int(sizes.max(initial=0)) <= steps <= MAX_STEPS:
            wanted = f"{int(sizes.max(initial=0))} to {MAX_STEPS} steps"
            raise FieldError("steps", wanted=wanted, got=steps)
        products = running_products(weights, offsets)
        columns = np.zeros((2 * steps, len(sizes)))
        for step in range(steps):
            goes_on = sizes > step
            at = offsets[:-1][goes_on] + step
            columns[step, goes_on] = products[at] * reward[at]
            columns[steps + step] = products[np.minimum(offsets[:-1] + step, offsets[1:] - 1)]
        sums = GroupSums.of(columns, group, groups)
        return WeightedSums(sums, steps, Support.of(products[offsets[1:] - 1]))

    def __add__(self, other: WeightedSums) -> WeightedSums:
        return WeightedSums(self.groups + other.groups, self.steps, self.whole + other.whole)


def weighted_pdis(sums: WeightedSums, *, gamma: float = 1.0, level: float = 0.95) -> Estimate:
    """Return weighted PDIS; the interval is Student's over groups, of the value's linear part in each group's sums.

    Raises:
        FieldError: gamma is not in [0, 1].
        SupportError: there are no trajectories, or the weights of a step are all 0.
    """
    if not 0.0 <= gamma <= 1.0:
        raise FieldError("gamma", wanted="a number in [0, 1]", got=gamma)
    if not sums.whole.n:
        raise SupportError("there are no trajectories to estimate from")
    by_group = sums.groups.sums
    reward, weight = by_group[: sums.steps], by_group[sums.steps :]
    over = weight.sum(1)
    if not bool((over > 0).all()):
        raise SupportError(f"no trajectory supports the policy up to step {int(np.argmin(over > 0))}")
    ratio = reward.sum(1) / over
    scale = gamma ** np.arange(sums.steps)
    value = float(scale @ ratio)
    linear = (scale / over) @ (reward - ratio[:, None] * weight)
    filled = int((weight[0] > 0).sum())
    half = math.inf
    if filled > 1:
        error = math.sqrt(float((linear**2).sum()) * filled / (filled - 1))
        half = float(special.stdtrit(filled - 1, 0.5 + level / 2.0)) * error
    return Estimate(value, value - half, value + half, level, sums.whole.n, sums.whole.ess, sums.whole.doubts())
