"""A memory that is set and not learned: what a clone keeps of a user's past.

The state of a recurrent net whose weights are given: whether anything came yet, the first response, how many came,
averages of responses and of what was shown over several horizons, and averages of random mixtures of both. It is an
echo state network without echoes (Jaeger 2001), in the form of a GRU, which is the form that is served: the gate that
keeps a unit is constant, and no unit looks at others but to hold the first response. A few dozen trajectories are too
few to learn a memory from, and enough to learn what to do with one.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from decision.errors import FieldError
from simulators.sim2rec.network import ContextPolicy

DECAYS = (0.3, 0.6, 0.85, 0.95, 0.99)
"""Of the averages of one number; the last value itself is an input of the head."""
CLOCK = (0.95, 0.985)
"""Of the averages of 1, which tell how many outcomes came."""
_GAIN, _AT_ONCE, _FOR_GOOD = 0.5, -8.0, 16.0
"""What a number is multiplied by before it is bent; a gate that keeps nothing; what makes it one that keeps all."""
_SHORTEST, _LONGEST = 0.97, 0.015
"""Shares that the newest has in the averages of mixtures."""


def set_memory(policy: ContextPolicy, features: int, seed: int) -> nn.GRU:
    """Set the recurrent weights of `policy`, and return the net that they are of.

    Args:
        policy: with a memory; its first inputs are whether an outcome came, the response, and the action's features.
        features: of an action, d. Where the averages of each would take more than half of the memory, they come in
            mixtures alone.
        seed: of the mixtures.

    Raises:
        FieldError: the policy has no memory, or one of less than twice the units that responses take.
    """
    extractor, units = policy.extractor, policy.hidden
    if extractor is None or units < 2 * _units_for(1):
        raise FieldError("hidden", wanted=f"{2 * _units_for(1)} units or more", got=units)
    rng, own = np.random.default_rng([seed, 5]), 2 + features
    seen, kept = np.zeros((units, policy.inputs)), np.full(units, _AT_ONCE)
    numbers = range(1, own if _units_for(1 + features) <= units // 2 else 2)
    first = range(1, 1 + len(numbers))
    seen[0, 0] = 3.0
    seen[list(first), list(numbers)] = _GAIN
    averages = [(0, decay) for decay in CLOCK] + [(number, decay) for number in numbers for decay in DECAYS]
    at = 1 + len(first)
    for unit, (number, decay) in enumerate(averages, at):
        seen[unit, number], kept[unit] = _GAIN, _logit(decay)
    at += len(averages)
    spread = np.concatenate([[0.5, 1.0], np.full(features, 1.0 / np.sqrt(features))])
    seen[at:, :own] = spread * rng.normal(size=(units - at, own))
    newest = np.exp(rng.uniform(np.log(_LONGEST), np.log(_SHORTEST), units - at))
    kept[at:] = _logit(1.0 - newest)
    held = np.zeros((units, units))
    held[list(first), 0] = _FOR_GOOD
    none = np.zeros_like(held)
    wanted = {
        "weight_ih_l0": np.concatenate([np.zeros((2 * units, policy.inputs)), seen]),
        "weight_hh_l0": np.concatenate([none, held, none]),
        "bias_ih_l0": np.concatenate([np.zeros(units), kept, np.zeros(units)]),
        "bias_hh_l0": np.zeros(3 * units),
    }
    with torch.no_grad():
        for name, value in wanted.items():
            getattr(extractor, name).copy_(torch.from_numpy(value.astype(np.float32)))
    return extractor


def _units_for(numbers: int) -> int:
    return 1 + len(CLOCK) + (1 + len(DECAYS)) * numbers


def _logit(share: np.ndarray | float) -> np.ndarray:
    return np.log(np.asarray(share) / (1.0 - np.asarray(share)))
