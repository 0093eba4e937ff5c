"""What an action is worth from a logged state on, and what the state is worth: implicit Q-learning.

    V: expectile regression of Q(s, a) at tau > 1/2, over logged actions only
    Q: (r + gamma V(s') - Q(s, a))^2

No action that was not logged is ever asked about, so nothing is extrapolated. The state is what the log's own past says
of the user (`simulators.learned.responses.SummaryResponse`). Every trajectory counts alike: the critic needs the bad
actions to know that they are bad. The last step of a window has no successor and is left out.

References:
    Kostrikov, Nair and Levine 2022, "Offline reinforcement learning with implicit Q-learning", arXiv 2110.06169.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from decision.errors import FieldError
from simulators.learned.responses import SummaryResponse
from simulators.learned.trajectories import Counts, Singles, Trajectories

_WIDTH = 64


@dataclass(frozen=True, slots=True)
class CriticRecipe:
    """How a critic learns.

    Attributes:
        steps: gradient steps.
        batch: logged steps in each.
        rate: learning rate at the start; falls to 3%.
        gamma: discount per step, in [0, 1).
        expectile: tau, in [1/2, 1): larger looks more at the better actions.
        target: share of the way that the target net goes to the newest at each step.
    """

    steps: int = 2_500
    batch: int = 256
    rate: float = 1e-3
    gamma: float = 0.98
    expectile: float = 0.7
    target: float = 0.01

    def __post_init__(self) -> None:
        if min(self.steps, self.batch) < 1 or not 0.0 <= self.gamma < 1.0 or not 0.5 <= self.expectile < 1.0:
            raise FieldError("critic", wanted="steps and a batch, gamma in [0, 1), expectile in [.5, 1)", got=self)


def advantages_of(log: Trajectories, offered: Counts, recipe: CriticRecipe, seed: int) -> Singles:
    """Return [n, T] by how much what was logged is better than what the state lets expect; 0 beyond the last step.

    In units of the rewards' deviation.

    Args:
        log: the trajectories.
        offered: codes of the actions learned of, ascending; what was logged of others is passed over.
        recipe: how much is learned.
        seed: of weights and batches.

    Raises:
        FieldError: no trajectory has two steps.
    """
    states, inside = _states(log), log.inside
    followed = np.zeros_like(inside)
    followed[:, :-1] = inside[:, 1:] & np.isin(log.actions[:, :-1], offered)
    where = np.flatnonzero(followed.ravel())
    if not where.size:
        raise FieldError("log", wanted="a trajectory of two steps or more", got=log.steps)
    flat = torch.from_numpy(states.reshape(-1, states.shape[-1]))
    spread = float(log.rewards[inside].std()) or 1.0
    rewards = torch.from_numpy(((log.rewards - log.rewards[inside].mean()) / spread).astype(np.float32).ravel())
    places = np.minimum(np.searchsorted(offered, log.actions), len(offered) - 1)
    actions = torch.from_numpy(places.ravel())
    rng, (value, quality, target) = np.random.default_rng(seed), _nets(states.shape[-1], len(offered), seed)
    optimizer = torch.optim.Adam([*value.parameters(), *quality.parameters()], lr=recipe.rate, fused=True)
    for step in range(recipe.steps):
        optimizer.param_groups[0]["lr"] = recipe.rate * (1.0 - 0.97 * step / recipe.steps)
        rows = torch.from_numpy(where[rng.integers(0, where.size, recipe.batch)])
        now, chosen = flat[rows], actions[rows][:, None]
        with torch.no_grad():
            wanted = rewards[rows] + recipe.gamma * value(flat[rows + 1])[:, 0]
            reached = target(now).gather(1, chosen)[:, 0]
        above = reached - value(now)[:, 0]
        bent = torch.where(above > 0.0, recipe.expectile, 1.0 - recipe.expectile) * above.square()
        missed = (quality(now).gather(1, chosen)[:, 0] - wanted).square()
        optimizer.zero_grad()
        (bent.mean() + missed.mean()).backward()
        optimizer.step()
        with torch.no_grad():
            for slow, new in zip(target.parameters(), quality.parameters(), strict=True):
                slow.lerp_(new, recipe.target)
    with torch.no_grad():
        found = target(flat).gather(1, actions[:, None])[:, 0] - value(flat)[:, 0]
    return np.where(inside, found.numpy().reshape(inside.shape), np.float32(0.0))


def _states(log: Trajectories) -> Singles:
    summary = SummaryResponse()
    summary.features = log.shown.shape[2]
    return summary.memories_of(log).transpose(1, 0, 2).copy()


def _nets(inputs: int, actions: int, seed: int) -> tuple[nn.Module, nn.Module, nn.Module]:
    def net(outputs: int) -> nn.Module:
        hidden = (nn.Linear(inputs, _WIDTH), nn.ReLU(), nn.Linear(_WIDTH, _WIDTH), nn.ReLU())
        return nn.Sequential(*hidden, nn.Linear(_WIDTH, outputs))

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        value, quality, target = net(1), net(actions), net(actions)
    target.load_state_dict(quality.state_dict())
    for weight in target.parameters():
        weight.requires_grad_(False)
    return value, quality, target
