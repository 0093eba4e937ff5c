"""A policy with memory cloned from logged trajectories, better decisions counting for more.

    minimise - sum_t min(exp(beta A_t / sd), 100) log pi(a_t | h_t)

over whole trajectories, A the critic's advantages (advantage-weighted regression, Peng et al. 2019; the extraction of
implicit Q-learning). The policy's head is a softmax over the actions of the log, which is the form that is served: its
propensities are exact. Actions that were not offered at a step have no part in its loss. Those that were offered and
that the version in charge never draws have one, or its trajectories would say nothing against them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional
from torch.nn.utils import clip_grad_norm_

from decision.batch import Floats
from decision.errors import FieldError
from simulators.learned.groups import GroupView
from simulators.learned.trajectories import Counts, Singles, Trajectories
from simulators.sim2rec.network import ContextPolicy

_LARGEST = 100.0
_NEVER = -1e9


@dataclass(frozen=True, slots=True)
class CloneRecipe:
    """How a policy is cloned.

    Attributes:
        steps: gradient steps.
        batch: trajectories in each.
        rate: learning rate at the start; falls to 3%.
        beta: how much better decisions count, per standard deviation of the advantages; 0 clones all alike.
    """

    steps: int = 500
    batch: int = 64
    rate: float = 4e-3
    beta: float = 3.0

    def __post_init__(self) -> None:
        if min(self.steps, self.batch) < 1 or self.beta < 0.0:
            raise FieldError("clone", wanted="steps and a batch, beta of 0 or more", got=self)


def cloned(
    log: Trajectories,
    view: GroupView,
    offered: Counts,
    advantages: Singles,
    weights: Floats,
    recipe: CloneRecipe,
    seed: int,
) -> ContextPolicy:
    """Return a policy of one logit per action offered.

    Args:
        log: the trajectories.
        view: what the policy sees.
        offered: [k] codes of the actions in the log, ascending.
        advantages: [n, T] of what was logged.
        weights: [n] probabilities of drawing each trajectory.
        recipe: how much is learned.
        seed: of weights and batches.
    """
    rng, n = np.random.default_rng(seed), len(log)
    policy = ContextPolicy(view.width, len(offered), hidden=48, seed=seed, remembered=view.remembered)
    optimizer = torch.optim.Adam(policy.parameters(), lr=recipe.rate, fused=True)
    spread = float(advantages[log.inside].std()) or 1.0
    known = log.inside & np.isin(log.actions, offered)
    counts = np.minimum(np.exp(recipe.beta * advantages / spread), _LARGEST) * known
    counts = (counts / counts.max()).astype(np.float32)
    inputs, chosen = inputs_of(log, view), codes_in(offered, log.actions)
    for step in range(recipe.steps):
        optimizer.param_groups[0]["lr"] = recipe.rate * (1.0 - 0.97 * step / recipe.steps)
        rows = rng.choice(n, min(recipe.batch, n), p=weights)
        logits, _ = policy(torch.from_numpy(inputs[rows]))
        if log.offered is not None:
            logits = logits.masked_fill(torch.from_numpy(~log.offered[rows][..., offered]), _NEVER)
        wanted = torch.from_numpy(chosen[rows])
        likely = functional.log_softmax(logits, dim=-1).gather(2, wanted[..., None])[..., 0]
        count = torch.from_numpy(counts[rows])
        loss = -(likely * count).sum() / count.sum().clamp(min=1e-6)
        optimizer.zero_grad()
        loss.backward()
        clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()
    return policy


def codes_in(offered: Counts, actions: Counts) -> Counts:
    """Return the places of `actions` among those `offered`; any place for one that is not."""
    return np.minimum(np.searchsorted(offered, actions), len(offered) - 1)


def inputs_of(log: Trajectories, view: GroupView) -> Singles:
    """Return [n, T, width] what the policy sees before each logged step."""
    response, shown = log.responses, log.shown
    seen = [
        view.inputs(response[:, max(time - 1, 0)], shown[:, max(time - 1, 0)], log.group_codes, first=time == 0)
        for time in range(log.steps)
    ]
    return np.stack(seen, axis=1)
