"""Proximal policy optimisation with memory, the form in which Sim2Rec was published.

PPO (Schulman et al. 2017, arXiv 1707.06347) as the authors run it: policy and value are two separate nets, each inputs
-> MLP -> LSTM -> concat(inputs, state) -> MLP; a Gaussian of a width that does not depend on the state; rewards divided
by the running deviation of the discounted return; clipped policy and value; generalised advantages. Backpropagation is
truncated to half an episode, from the state kept of the rollout. Learning rate and net sizes are ours: theirs are made
for 2e9 user-steps and do not move within the 2e7 that are run here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from decision.batch import Floats
from decision.errors import FieldError
from simulators.environments.lts.env import HORIZON, REWARD_NOISE, LtsEnv, LtsUsers, document_of, draw_users
from simulators.sim2rec.views import View


@dataclass(frozen=True, slots=True)
class PpoRecipe:
    """How much is learned.

    Attributes:
        updates: of policy and value.
        users: fresh users an update, over all simulators; each gives one whole episode.
        epochs: passes over an update's episodes.
        rate: learning rate at the start; falls to 1% of it.
        gamma: discount.
        smoothing: lambda of the generalised advantages.
        clip: of the probability ratio and of the value.
        entropy: weight of the entropy bonus.
        chunk: steps that errors are carried back through; divides the episode.
    """

    updates: int = 150
    users: int = 252
    epochs: int = 4
    rate: float = 1e-3
    gamma: float = 0.99
    smoothing: float = 0.95
    clip: float = 0.2
    entropy: float = 0.002
    chunk: int = 70

    def __post_init__(self) -> None:
        for name in ("updates", "users", "epochs", "chunk"):
            if getattr(self, name) < 1:
                raise FieldError(f"recipe.{name}", wanted="1 or more", got=getattr(self, name))
        if HORIZON % self.chunk:
            raise FieldError("recipe.chunk", wanted=f"a divisor of {HORIZON}", got=self.chunk)


class Recurrent(nn.Module):
    """One of the two nets."""

    def __init__(self, inputs: int, *, width: int = 64, hidden: int = 64) -> None:
        super().__init__()
        self.hidden = hidden
        self.before = nn.Sequential(nn.Linear(inputs, width), nn.LeakyReLU())
        self.memory = nn.LSTM(width, hidden, batch_first=True)
        self.after = nn.Sequential(nn.Linear(inputs + hidden, 64), nn.LeakyReLU(), nn.Linear(64, 1))

    def start(self, users: int) -> tuple[Tensor, Tensor]:
        """Return the state of users nothing is known of."""
        return torch.zeros(1, users, self.hidden), torch.zeros(1, users, self.hidden)

    def forward(self, inputs: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return [n, T] and the state after inputs [n, T, f]."""
        found, state = self.memory(self.before(inputs), state)
        return self.after(torch.cat([inputs, found], dim=-1))[..., 0], state


@dataclass(slots=True)
class Actor:
    """What PPO learns.

    Attributes:
        policy: mean of the level, before tanh.
        value: of the state, in units of the scaled reward.
        log_std: of the level.
        user_steps: simulated so far.
        curve: (user_steps, mean return of the exploring policy in its simulators) of every update.
    """

    policy: Recurrent
    value: Recurrent
    log_std: nn.Parameter
    user_steps: int = 0
    curve: list[tuple[int, float]] = field(default_factory=list)


@dataclass(slots=True)
class _Episodes:
    inputs: Tensor
    levels: Tensor
    log_density: Tensor
    values: Tensor
    rewards: Tensor
    policy_states: list[tuple[Tensor, Tensor]]
    value_states: list[tuple[Tensor, Tensor]]


@dataclass(slots=True)
class Spread:
    """Running deviation of the discounted return (Welford's counts, kept by batch)."""

    count: float = 1e-4
    mean: float = 0.0
    square: float = 1.0

    def after(self, rewards: Tensor, gamma: float) -> float:
        """Return the deviation with `rewards` [n, T] counted in."""
        running, returns = torch.zeros(len(rewards)), []
        for time in range(rewards.shape[1]):
            running = running * gamma + rewards[:, time]
            returns.append(running)
        seen = torch.stack(returns)
        count, mean, square = seen.numel(), float(seen.mean()), float(seen.var(unbiased=False))
        total, gap = self.count + count, mean - self.mean
        moved = self.square * self.count + square * count + gap**2 * self.count * count / total
        self.mean += gap * count / total
        self.count, self.square = total, moved / total
        return math.sqrt(self.square) + 1e-8


@dataclass(slots=True)
class Training:
    """Where PPO stands; enough to go on as if never stopped.

    Attributes:
        actor: what is learned.
        chooser: optimizer of the policy and its width.
        critic: optimizer of the value.
        spread: running deviation of the discounted return.
        rng: source of users and rewards.
        generator: of the levels.
        update: updates done.
    """

    actor: Actor
    chooser: torch.optim.Adam
    critic: torch.optim.Adam
    spread: Spread
    rng: np.random.Generator
    generator: torch.Generator
    update: int = 0


def begin(view: View, recipe: PpoRecipe, seed: int) -> Training:
    """Return a training that has learned nothing."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        actor = Actor(Recurrent(view.width), Recurrent(view.width), nn.Parameter(torch.tensor(-0.5)))
    chooser = torch.optim.Adam([*actor.policy.parameters(), actor.log_std], lr=recipe.rate, eps=1e-5)
    critic = torch.optim.Adam(actor.value.parameters(), lr=recipe.rate, eps=1e-5)
    generator = torch.Generator().manual_seed(seed)
    return Training(actor, chooser, critic, Spread(), np.random.default_rng(seed), generator)


def train(
    training: Training,
    view: View,
    chocs: Floats,
    recipe: PpoRecipe,
    *,
    until: int | None = None,
    kale_shift: float = 0.0,
    noise: float = REWARD_NOISE,
    watch: Callable[[Training], None] | None = None,
) -> Actor:
    """Go on with `training`, which is changed in place, and return its actor.

    Args:
        training: as `begin` or `simulators.sim2rec.ppo_checkpoint.restore` returned it.
        view: what is seen.
        chocs: [g] group means of the simulators.
        recipe: how much; its number of updates sets the pace of the learning rate.
        until: stop after this update; None goes on to the recipe's end.
        kale_shift: of the simulated users.
        noise: standard deviation of the reward.
        watch: called after every update.
    """
    actor = training.actor
    last = recipe.updates if until is None else min(until, recipe.updates)
    while training.update < last:
        rate = recipe.rate * (1.0 - 0.99 * training.update / recipe.updates)
        training.chooser.param_groups[0]["lr"] = training.critic.param_groups[0]["lr"] = rate
        users = draw_users(training.rng, chocs, max(1, recipe.users // len(chocs)), kale_shift=kale_shift)
        seed = int(training.rng.integers(2**31))
        episodes = _roll(actor, view, users, seed, training.generator, recipe.chunk, noise)
        actor.user_steps += users.memory.size * HORIZON
        actor.curve.append((actor.user_steps, float(episodes.rewards.sum(dim=1).mean())))
        rewards = episodes.rewards / training.spread.after(episodes.rewards, recipe.gamma)
        advantages = _advantages(rewards, episodes.values, recipe)
        targets = advantages + episodes.values
        advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        for _ in range(recipe.epochs):
            for number in range(HORIZON // recipe.chunk):
                _improve(actor, episodes, advantages, targets, number, recipe, training.chooser, training.critic)
        training.update += 1
        if watch is not None:
            watch(training)
    return actor


def returns_of_actor(actor: Actor, view: View, users: LtsUsers, seed: int, *, noise: float = REWARD_NOISE) -> Floats:
    """Return [n] what the mean level of `actor` earns each user in one episode."""
    env = LtsEnv(users, noise=noise)
    observed, _ = env.reset(seed=seed)
    fixed, actions = view.fixed(observed, users.group), np.zeros(len(users), np.int64)
    state, total = actor.policy.start(len(users)), np.zeros(len(users))
    with torch.no_grad():
        for _ in range(env.horizon):
            mean, state = actor.policy(torch.from_numpy(view.inputs(observed, actions, fixed))[:, None], state)
            actions = document_of(torch.tanh(mean[:, 0]).numpy())
            observed, reward, *_ = env.step(actions)
            total += reward
    return total


def _roll(
    actor: Actor, view: View, users: LtsUsers, seed: int, generator: torch.Generator, chunk: int, noise: float
) -> _Episodes:
    n, env = len(users), LtsEnv(users, noise=noise)
    observed, _ = env.reset(seed=seed)
    fixed, actions = view.fixed(observed, users.group), np.zeros(n, np.int64)
    inputs = torch.empty(n, HORIZON, view.width)
    levels, density, values, rewards = (torch.empty(n, HORIZON) for _ in range(4))
    of_policy, of_value = actor.policy.start(n), actor.value.start(n)
    policy_states, value_states = [], []
    with torch.no_grad():
        std = actor.log_std.exp()
        for time in range(HORIZON):
            if time % chunk == 0:
                policy_states.append(of_policy)
                value_states.append(of_value)
            inputs[:, time] = torch.from_numpy(view.inputs(observed, actions, fixed))
            mean, of_policy = actor.policy(inputs[:, time : time + 1], of_policy)
            value, of_value = actor.value(inputs[:, time : time + 1], of_value)
            mean = torch.tanh(mean[:, 0])
            levels[:, time] = mean + std * torch.randn(n, generator=generator)
            density[:, time] = _log_density(levels[:, time], mean, actor.log_std)
            values[:, time] = value[:, 0]
            actions = document_of(levels[:, time].numpy())
            observed, reward, *_ = env.step(actions)
            rewards[:, time] = torch.from_numpy(reward)
    return _Episodes(inputs, levels, density, values, rewards, policy_states, value_states)


def _advantages(rewards: Tensor, values: Tensor, recipe: PpoRecipe) -> Tensor:
    """Return generalised advantages (Schulman et al. 2016); episodes end with nothing to come."""
    out, carried = torch.empty_like(rewards), torch.zeros(len(rewards))
    following = torch.zeros(len(rewards))
    for time in range(rewards.shape[1] - 1, -1, -1):
        error = rewards[:, time] + recipe.gamma * following - values[:, time]
        carried = error + recipe.gamma * recipe.smoothing * carried
        out[:, time], following = carried, values[:, time]
    return out


def _improve(
    actor: Actor,
    episodes: _Episodes,
    advantages: Tensor,
    targets: Tensor,
    number: int,
    recipe: PpoRecipe,
    chooser: torch.optim.Adam,
    critic: torch.optim.Adam,
) -> None:
    part = slice(number * recipe.chunk, (number + 1) * recipe.chunk)
    inputs, advantage = episodes.inputs[:, part], advantages[:, part]
    mean, _ = actor.policy(inputs, episodes.policy_states[number])
    density = _log_density(episodes.levels[:, part], torch.tanh(mean), actor.log_std)
    ratio = (density - episodes.log_density[:, part]).exp()
    cut = ratio.clamp(1.0 - recipe.clip, 1.0 + recipe.clip)
    loss = -torch.minimum(ratio * advantage, cut * advantage).mean() - recipe.entropy * actor.log_std
    _descend(loss, chooser)
    value, _ = actor.value(inputs, episodes.value_states[number])
    before, target = episodes.values[:, part], targets[:, part]
    near = before + (value - before).clamp(-recipe.clip, recipe.clip)
    _descend(0.5 * torch.maximum((value - target).square(), (near - target).square()).mean(), critic)


def _descend(loss: Tensor, optimizer: torch.optim.Adam) -> None:
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], 0.5)
    optimizer.step()


def _log_density(level: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    return -0.5 * ((level - mean) / log_std.exp()).square() - log_std - 0.5 * math.log(2.0 * math.pi)
