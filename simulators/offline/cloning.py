"""A policy with memory cloned from logged trajectories, better decisions counting for more.

    minimise - sum_t min(exp(beta A_t / sd), 100) log pi(a_t | h_t)

over the decisions of the trajectories, A the critic's advantages (advantage-weighted regression, Peng et al. 2019; the
extraction of implicit Q-learning). The memory of h_t is set (`simulators.offline.memory`), and what is learned is the
head on it: a recurrent net that learned both from forty trajectories knew them by heart and nobody else. The head is a
softmax over the actions of the log, which is the form that is served: its propensities are exact. Actions that were not
offered at a step have no part in its loss. Those that were offered and that the version in charge never draws have one,
or its trajectories would say nothing against them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from decision.batch import Floats
from decision.errors import FieldError
from simulators.learned.groups import GroupView
from simulators.learned.trajectories import Counts, Singles, Trajectories
from simulators.offline.memory import set_memory
from simulators.offline.weights import Kind
from simulators.sim2rec.network import ContextPolicy

_LARGEST = 100.0
_NEVER = -1e9
_LEAST_SPREAD = 0.03
_AT_ONCE = 256
"""Trajectories whose memories are made at a time."""


@dataclass(frozen=True, slots=True)
class CloneRecipe:
    """How a policy is cloned.

    Attributes:
        steps: gradient steps.
        batch: decisions in each.
        rate: learning rate at the start; falls to 3%.
        beta: how much better decisions count, per standard deviation of the advantages; 0 clones all alike.
    """

    steps: int = 1_500
    batch: int = 256
    rate: float = 2e-3
    beta: float = 3.0

    def __post_init__(self) -> None:
        if min(self.steps, self.batch) < 1 or self.beta < 0.0:
            raise FieldError("clone", wanted="steps and a batch, beta of 0 or more", got=self)


def beta_for(kind: Kind) -> float:
    """Return how much better decisions count where `kind` says whose trajectories do.

    A critic learns from all trajectories. What it thinks of the decisions of a few that were picked comes of what
    others did afterwards, and counts for less.
    """
    return CloneRecipe().beta if kind == "uniform" else 1.0


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
        weights: [n] probabilities of drawing the decisions of each trajectory.
        recipe: how much is learned.
        seed: of the memory, weights and batches.

    Raises:
        FieldError: no decision of the trajectories that count is about an action in `offered`.
    """
    rng = np.random.default_rng(seed)
    policy = ContextPolicy(view.width, len(offered), hidden=48, seed=seed, remembered=view.remembered)
    extractor = set_memory(policy, view.features, seed)
    known = log.inside & np.isin(log.actions, offered)
    chances = np.cumsum((weights[:, None] * known).ravel())
    if chances[-1] <= 0.0:
        raise FieldError("log", wanted="decisions about actions that may be shown", got="none in what is imitated")
    draws = np.searchsorted(chances, rng.random((recipe.steps, recipe.batch)) * chances[-1], side="right")
    places, batches = np.unique(np.minimum(draws, np.flatnonzero(known)[-1]), return_inverse=True)
    batches = torch.from_numpy(batches.reshape(draws.shape))
    seen = _seen(extractor, inputs_of(log, view), places)
    centre, scale = seen.mean(dim=0), seen.std(dim=0, correction=0).clamp(min=_LEAST_SPREAD)
    seen = (seen - centre) / scale
    chosen = torch.from_numpy(codes_in(offered, log.actions).ravel()[places])
    closed = None
    if log.offered is not None:
        closed = torch.from_numpy(~log.offered.reshape(-1, len(log.catalogue))[places][:, offered])
    spread = float(advantages[log.inside].std()) or 1.0
    counts = np.minimum(np.exp(recipe.beta * advantages.ravel()[places] / spread), _LARGEST)
    counts = torch.from_numpy((counts / counts.max()).astype(np.float32))
    optimizer = torch.optim.Adam(policy.head.parameters(), lr=recipe.rate, fused=True)
    for step, rows in enumerate(batches):
        optimizer.param_groups[0]["lr"] = recipe.rate * (1.0 - 0.97 * step / recipe.steps)
        logits = policy.head(seen[rows])
        if closed is not None:
            logits = logits.masked_fill(closed[rows], _NEVER)
        missed = functional.cross_entropy(logits, chosen[rows], reduction="none")
        loss = (missed * counts[rows]).sum() / counts[rows].sum().clamp(min=1e-6)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    _in_own_units(policy.head, centre, scale)
    return policy


def _seen(extractor: nn.GRU, inputs: Singles, places: Counts) -> Tensor:
    """Return [m, f + h] what the head sees at `places` (ascending, of n T) of `inputs` [n, T, f]."""
    n, steps, _ = inputs.shape
    found = list[Tensor]()
    for first in range(0, n, _AT_ONCE):
        rows = torch.from_numpy(inputs[first : first + _AT_ONCE])
        with torch.no_grad():
            both = torch.cat([rows, extractor(rows)[0]], dim=-1).flatten(0, 1)
        low, high = np.searchsorted(places, [first * steps, (first + _AT_ONCE) * steps])
        found.append(both[torch.from_numpy(places[low:high] - first * steps)])
    return torch.cat(found)


def _in_own_units(head: nn.Sequential, centre: Tensor, scale: Tensor) -> None:
    """Have a `head` that was taught on (x - centre) / scale take x itself."""
    weight, bias, *_ = head.parameters()
    with torch.no_grad():
        weight.div_(scale)
        bias.sub_(weight @ centre)


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
