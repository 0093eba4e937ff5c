"""A student of values: what each action is worth to each simulated user at some steps, learned as a policy with memory.

The student learns the softmax of the values, so that its head is a distribution, and a value is told from the next best
one even where the student is sure of another.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional
from torch.nn.utils import clip_grad_norm_

from decision.errors import FieldError
from simulators.environments.lts.env import Singles
from simulators.sim2rec.network import ContextPolicy

Round = tuple[Singles, Singles, Singles]
"""Inputs [n, T, f], values [n, T, A], and the weight of each step's values [n, T], 0 where there are none."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How much a student of values learns.

    Attributes:
        iterations: rounds of rolling out and learning.
        kept: rounds learned from, the latest.
        batches: gradient steps a round.
        batch: users in each.
        rate: learning rate at the start; falls to 3%.
        temperature: of the softmax, in deviations of a round's values from their mean over actions.
    """

    iterations: int = 24
    kept: int = 8
    batches: int = 24
    batch: int = 48
    rate: float = 5e-3
    temperature: float = 0.1

    def __post_init__(self) -> None:
        for name in ("iterations", "kept", "batches", "batch"):
            if getattr(self, name) < 1:
                raise FieldError(f"pace.{name}", wanted="1 or more", got=getattr(self, name))


def taught(
    inputs: int,
    actions: int,
    roll: Callable[[ContextPolicy, np.random.Generator], Round],
    pace: Pace,
    seed: int,
) -> ContextPolicy:
    """Return a student of one logit per action.

    Args:
        inputs: f, numbers per user and step.
        actions: A.
        roll: follows the student once, and values its steps.
        pace: how much.
        seed: of weights, rollouts and batches.
    """
    rng = np.random.default_rng(seed)
    policy = ContextPolicy(inputs, actions, seed=seed)
    optimizer = torch.optim.Adam(policy.parameters(), lr=pace.rate)
    rounds: deque[Round] = deque(maxlen=pace.kept)
    for iteration in range(pace.iterations):
        optimizer.param_groups[0]["lr"] = pace.rate * (1.0 - 0.97 * iteration / pace.iterations)
        seen, values, weight = roll(policy, rng)
        better = values - values.mean(axis=2, keepdims=True)
        scale = max(float(better[weight > 0.0].std()), 1e-6)
        rounds.append((seen, (better / scale).astype(np.float32), weight))
        for _ in range(pace.batches):
            parts = rounds[int(rng.integers(len(rounds)))]
            rows = rng.integers(0, len(parts[0]), pace.batch)
            own, value, counts = (torch.from_numpy(part[rows]) for part in parts)
            log_p = functional.log_softmax(policy(own)[0], dim=-1)
            misfit = -(torch.softmax(value / pace.temperature, dim=-1) * log_p).sum(dim=-1)
            loss = (misfit * counts).sum() / counts.sum().clamp(min=1e-6)
            optimizer.zero_grad()
            loss.backward()
            clip_grad_norm_(policy.parameters(), 1.0)
            optimizer.step()
    return policy
