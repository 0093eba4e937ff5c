"""What an action is worth from a logged state on, and what the state is worth: implicit Q-learning.

    V: expectile regression of Q(s, a) at tau > 1/2, over logged actions only
    Q: (r + gamma V(s') - Q(s, a))^2

No action that was not logged is asked about while it learns, so no error of one is learned from. The state is what the
log's own past says of the user (`simulators.learned.responses.SummaryResponse`). Every trajectory counts alike: the
critic needs the bad actions to know that they are bad. The last step of a window has no successor and is left out.

References:
    Kostrikov, Nair and Levine 2022, "Offline reinforcement learning with implicit Q-learning", arXiv 2110.06169.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from decision.errors import FieldError
from simulators.learned.responses import SummaryResponse
from simulators.learned.trajectories import Counts, Singles, Trajectories

_WIDTH = 64
_AT_ONCE = 65_536
"""States whose advantages are made at a time."""
_relu_backward = torch.ops.aten.threshold_backward.grad_input


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


@dataclass(frozen=True, slots=True)
class Critic:
    """By how much actions are better than what a state lets expect.

    Attributes:
        states: [n T, f] what is known of the user before each logged step, and 1.
        value: layers of what a state is worth.
        quality: layers of what each action is worth in it.
        spread: deviation of the advantages of all that was offered at the logged steps; 1 where there is none.
    """

    states: Tensor
    value: Sequence[Tensor]
    quality: Sequence[Tensor]
    spread: float

    def advantages(self, places: Tensor) -> Tensor:
        """Return [m, k] the advantage of each action at `places` ([m], of n T), in units of `spread`."""
        return _advantages(self.states[places], self.value, self.quality) / self.spread


def critic_of(log: Trajectories, offered: Counts, recipe: CriticRecipe, seed: int) -> Critic:
    """Return what the log teaches of the actions `offered`.

    Args:
        log: the trajectories.
        offered: [k] codes of the actions learned of, ascending; what was logged of others is passed over.
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
    rewards = ((log.rewards - log.rewards[inside].mean()) / spread).astype(np.float32).reshape(-1, 1)
    actions = np.minimum(np.searchsorted(offered, log.actions), len(offered) - 1).reshape(-1, 1)
    batches = where[np.random.default_rng(seed).integers(0, where.size, (recipe.steps, recipe.batch))]
    data = (flat, torch.from_numpy(rewards), torch.from_numpy(actions))
    value, quality = _taught(data, torch.from_numpy(batches), _layers(flat.shape[1], len(offered), seed), recipe)
    counted = np.repeat(inside[..., None], len(offered), axis=2)
    if log.offered is not None:
        counted &= log.offered[..., offered]
    counted = torch.from_numpy(counted.reshape(-1, len(offered)))
    count, total, squares = 0, 0.0, 0.0
    for states_of, asked in zip(flat.split(_AT_ONCE), counted.split(_AT_ONCE), strict=True):
        found = _advantages(states_of, value, quality)[asked].double()
        count, total, squares = count + len(found), total + float(found.sum()), squares + float(found.square().sum())
    return Critic(flat, value, quality, math.sqrt(max(squares / count - (total / count) ** 2, 0.0)) or 1.0)


def advantages_of(log: Trajectories, offered: Counts, recipe: CriticRecipe, seed: int) -> Singles:
    """Return [n, T] by how much what was logged is better than what the state lets expect; 0 beyond the last step.

    In units of the critic's `spread`; see `critic_of`.
    """
    critic, chosen = critic_of(log, offered, recipe, seed), np.searchsorted(offered, log.actions).ravel()
    actions = torch.from_numpy(np.minimum(chosen, len(offered) - 1))[:, None]
    parts = [critic.advantages(part).gather(1, actions[part]) for part in torch.arange(len(actions)).split(_AT_ONCE)]
    return np.where(log.inside, torch.cat(parts).numpy().reshape(log.inside.shape), np.float32(0.0))


def _advantages(states: Tensor, value: Sequence[Tensor], quality: Sequence[Tensor]) -> Tensor:
    """Return [m, k] advantages in deviations of the rewards, at `states` [m, f]."""
    return _Net(quality, len(states))(states) - _Net(value, len(states))(states)


def _states(log: Trajectories) -> Singles:
    """Return [n, T, f] what is known of the user before each step, and a last number 1, whose weights are biases."""
    summary = SummaryResponse()
    summary.features = log.shown.shape[2]
    found = summary.memories_of(log).transpose(1, 0, 2)
    return np.concatenate([found, np.ones_like(found[..., :1])], axis=-1)


class _Net:
    """Two hidden layers and an output.

    `torch.nn` records dozens of operations a step and allocates their results; here a step is a dozen operations, on
    memory that is kept.

    Args:
        layers: weights [w, f], [w, w + 1] and [o, w + 1]; the last column of each is a bias.
        rows: most inputs at once.
    """

    def __init__(self, layers: Sequence[Tensor], rows: int) -> None:
        self.layers = layers
        self.hidden = [torch.ones(rows, len(layer) + 1) for layer in layers[:-1]]

    def __call__(self, inputs: Tensor) -> Tensor:
        """Return the outputs [n, o] for `inputs` [n, f], n as many as there is memory for."""
        for layer, hidden in zip(self.layers[:-1], self.hidden, strict=True):
            torch.mm(inputs, layer.T, out=hidden[:, :-1]).relu_()
            inputs = hidden
        return torch.mm(inputs, self.layers[-1].T)

    def back(self, inputs: Tensor, of_outputs: Tensor, gradient: Sequence[Tensor]) -> None:
        """Fill in the `gradient` by the layers, given that by the outputs [m, o] of the first m `inputs` of a call."""
        seen = [inputs, *self.hidden]
        for number in reversed(range(len(self.layers))):
            below = seen[number][: len(of_outputs)]
            torch.mm(of_outputs.T, below, out=gradient[number])
            if number:
                reached = below[:, :-1]
                of_outputs = torch.mm(of_outputs, self.layers[number][:, :-1])
                _relu_backward(of_outputs, reached, 0.0, grad_input=of_outputs)


def _taught(
    data: tuple[Tensor, Tensor, Tensor], batches: Tensor, layers: Sequence[Tensor], recipe: CriticRecipe
) -> tuple[list[Tensor], list[Tensor]]:
    """Return the layers of the value, and of the slow copy of the quality.

    Args:
        data: states [m, f], rewards [m, 1], actions [m, 1].
        batches: [steps, batch] rows of `data` that have a successor, which is the next row.
        layers: three of the value and three of the quality, nothing learned.
        recipe: how much is learned.
    """
    states, rewards, actions = data
    batch, half = batches.shape[1], len(layers) // 2
    weights = torch.cat([layer.ravel() for layer in layers])
    weights.grad = torch.zeros_like(weights)
    now, gradient = _views(weights, layers), _views(weights.grad, layers)
    quick = weights[-sum(layer.numel() for layer in layers[half:]) :]
    slow = quick.clone()
    followed = _views(slow, layers[half:])
    value, quality, target = _Net(now[:half], 2 * batch), _Net(now[half:], batch), _Net(followed, batch)
    optimizer = torch.optim.Adam([weights], lr=recipe.rate, fused=True)
    of_qualities = torch.zeros(batch, len(layers[-1]))
    above_zero, below_zero = -2.0 * recipe.expectile / batch, -2.0 * (1.0 - recipe.expectile) / batch
    for step, rows in enumerate(batches.unbind(0)):
        optimizer.param_groups[0]["lr"] = recipe.rate * (1.0 - 0.97 * step / recipe.steps)
        both = states.index_select(0, torch.cat([rows, rows + 1]))
        here, chosen = both[:batch], actions.index_select(0, rows)
        values = value(both)
        above = target(here).gather(1, chosen).sub_(values[:batch])
        value.back(both, above * torch.where(above > 0.0, above_zero, below_zero), gradient[:half])
        wanted = torch.add(rewards.index_select(0, rows), values[batch:], alpha=recipe.gamma)
        missed = quality(here).gather(1, chosen).sub_(wanted)
        quality.back(here, of_qualities.zero_().scatter_(1, chosen, missed.mul_(2.0 / batch)), gradient[half:])
        optimizer.step()
        slow.lerp_(quick, recipe.target)
    return now[:half], followed


def _views(flat: Tensor, layers: Sequence[Tensor]) -> list[Tensor]:
    """Return the parts of `flat` that are `layers`, one after the other."""
    parts = flat.split([layer.numel() for layer in layers])
    return [part.view_as(layer) for part, layer in zip(parts, layers, strict=True)]


def _layers(inputs: int, actions: int, seed: int) -> list[Tensor]:
    """Return three layers of a value and three of a quality, as `torch.nn` starts them; the last input is a bias's."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = [
            nn.Linear(*size)
            for outputs in (1, actions)
            for size in ((inputs - 1, _WIDTH), (_WIDTH, _WIDTH), (_WIDTH, outputs))
        ]
    return [torch.cat([layer.weight, layer.bias[:, None]], dim=1).detach() for layer in made]
