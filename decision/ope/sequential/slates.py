"""Slates: several actions shown together, each with a reward of its own; four assumptions, four estimators.

Arrays are flat over slots, cut by offsets, so slates may differ in length. Weights are evaluation over logged
probability of what stood in a slot: given what stood in the slots above it for `cascade_terms` and `whole_terms`, on
its own for `independent_terms` and `pseudo_inverse_terms`; where both policies fill slots independently these are the
same.

- whole slate: any interaction. ``sum r  prod w`` (Swaminathan et al. 2017, arXiv 1605.04812, eq. 2)
- cascade: a reward depends on its slot and those above. ``sum_l r_l prod_{j<=l} w_j`` (McInerney et al. 2020, RIPS)
- independent: on its slot alone. ``sum_l r_l w_l`` (Li et al. 2018, IIPS)
- pseudo-inverse: the slate's reward is a sum of unseen parts of the slots; for a log that fills slots independently
  ``r (1 + sum_l (w_l - 1))`` (Swaminathan et al. 2017, eq. 4)
- cascade doubly robust: with a model q of the reward from a slot on (Kiyohara et al. 2022, arXiv 2202.01562).
"""

from __future__ import annotations

import numpy as np

from decision.batch import Floats, Ints
from decision.errors import FieldError
from decision.ragged import group_sum, spread


def running_products(weights: Floats, offsets: Ints) -> Floats:
    """Return [m] products of the weights of a group up to and with each member; loops over positions, not rows.

    Raises:
        FieldError: a weight is negative, or their number is not that of the offsets.
    """
    if weights.shape != (int(offsets[-1]),) or not bool((weights >= 0).all()):
        raise FieldError("weights", wanted=f"[{int(offsets[-1])}] numbers of 0 or more", got=weights)
    out = weights.copy()
    sizes = np.diff(offsets)
    for position in range(1, int(sizes.max(initial=0))):
        here = offsets[:-1][sizes > position] + position
        out[here] *= out[here - 1]
    return out


def whole_terms(weights: Floats, reward: Floats, offsets: Ints) -> Floats:
    """Return [n] terms for rewards that may depend on the whole slate.

    Args:
        weights: [m] given the slots above.
        reward: [m] of each slot.
        offsets: [n + 1], every slate has one slot or more.
    """
    return group_sum(reward, offsets) * running_products(weights, offsets)[offsets[1:] - 1]


def cascade_terms(weights: Floats, reward: Floats, offsets: Ints) -> Floats:
    """Return [n] terms for rewards that depend on the slots above; arguments as `whole_terms`."""
    return group_sum(running_products(weights, offsets) * reward, offsets)


def independent_terms(weights: Floats, reward: Floats, offsets: Ints) -> Floats:
    """Return [n] terms for rewards that depend on their slot alone; `weights` ([m]) are of each slot on its own."""
    return group_sum(weights * reward, offsets)


def pseudo_inverse_terms(weights: Floats, reward: Floats, offsets: Ints) -> Floats:
    """Return [n] terms for a slate's reward that is a sum over slots, logged with independent slots.

    Args:
        weights: [m] of each slot on its own.
        reward: [n] of the slate.
        offsets: [n + 1].
    """
    return reward * (1.0 + group_sum(weights - 1.0, offsets))


def cascade_dr_terms(weights: Floats, reward: Floats, expected: Floats, direct: Floats, offsets: Ints) -> Floats:
    """Return [n] doubly robust terms under the cascade.

    Args:
        weights: [m] given the slots above.
        reward: [m] of each slot.
        expected: [m] model of the sum of rewards from this slot on, at the action logged.
        direct: [m] its mean over the evaluation policy's actions in this slot.
        offsets: [n + 1].
    """
    whole = running_products(weights, offsets)
    before = np.ones_like(whole)
    first = np.zeros(len(whole), dtype=np.bool_)
    first[offsets[:-1]] = True
    before[~first] = whole[np.flatnonzero(~first) - 1]
    return group_sum(whole * (reward - expected) + before * direct, offsets)


def slate_weights(weights: Floats, offsets: Ints) -> Floats:
    """Return [n] weight of each whole slate, for the doubts of an estimate."""
    return running_products(weights, offsets)[offsets[1:] - 1]


def discounts(offsets: Ints, gamma: float) -> Floats:
    """Return [m] gamma to the power of the position in the group, gamma in [0, 1].

    Raises:
        FieldError: gamma is not in [0, 1].
    """
    if not 0.0 <= gamma <= 1.0:
        raise FieldError("gamma", wanted="a number in [0, 1]", got=gamma)
    position = np.arange(int(offsets[-1])) - spread(offsets[:-1].astype(np.float64), offsets)
    return gamma**position
