"""A student that sees what is observed, taught by a planner that knows the user: the recipe that reaches the optimum.

The planner (`simulators.environments.lts.planner`) knows each simulated user's parameters and so, in every state that
the student itself comes to, by how much one document is better: A = Q(strong) - Q(mild). The student minimises |A|
log(1 + exp(- logit sign A)), which is data aggregation (Ross, Gordon and Bagnell 2011, DAgger) with mistakes priced at
what they cost (AggreVaTe, Ross and Bagnell 2014). Along the switching line both documents are worth the same; the
price keeps labels there, which are noise, from counting.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch.nn import functional
from torch.nn.utils import clip_grad_norm_

from decision.batch import Floats
from decision.errors import FieldError
from simulators.environments.lts.env import HORIZON, REWARD_NOISE, LtsEnv, LtsUsers, Singles, draw_users
from simulators.environments.lts.planner import documents, plan
from simulators.sim2rec.network import HIDDEN, ContextPolicy
from simulators.sim2rec.views import View

AVERAGED = 0.98
"""Weight of the average of the weights against the newest, per gradient step."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How much a student learns.

    Attributes:
        iterations: rounds of rolling out and learning.
        users: fresh users a round, over all simulators.
        kept: rounds whose episodes are learned from, the latest.
        batches: gradient steps a round.
        batch: whole episodes in each.
        rate: learning rate at the start; falls to 3% of it.
        explore: probability of a random document, on every third round.
        kale_shift: of the simulated users.
        noise: standard deviation of the reward.
        lies: e; users report r exp(d) in place of the reward r, |d| <= e drawn evenly, half of them with one d for
            good, the others with another at every step. The planner goes by what is true. 0 for none.
    """

    iterations: int = 40
    users: int = 504
    kept: int = 12
    batches: int = 16
    batch: int = 96
    rate: float = 3e-3
    explore: float = 0.15
    kale_shift: float = 0.0
    noise: float = REWARD_NOISE
    lies: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.lies < 10.0:
            raise FieldError("recipe.lies", wanted="0 or more and below 10", got=self.lies)
        for name in ("iterations", "users", "kept", "batches", "batch"):
            if getattr(self, name) < 1:
                raise FieldError(f"recipe.{name}", wanted="1 or more", got=getattr(self, name))


@dataclass(slots=True)
class Progress:
    """Where a student stands; enough, with `rng`, to go on as if never stopped.

    Attributes:
        policy: the student.
        average: its weights, averaged over the latest gradient steps; what is deployed, since single steps swing the
            behaviour in groups that no simulator has.
        optimizer: of its weights.
        rng: source of users, exploration and batches.
        episodes: (inputs [n, T, f], advantages [n, T]) of the rounds kept.
        iteration: rounds done.
        user_steps: simulated so far.
        losses: weighted loss of every round.
    """

    policy: ContextPolicy
    average: ContextPolicy
    optimizer: torch.optim.Adam
    rng: np.random.Generator
    episodes: deque[tuple[Singles, Singles]]
    iteration: int = 0
    user_steps: int = 0
    losses: list[float] = field(default_factory=list)


def beginner(view: View, recipe: Recipe, seed: int, *, recurrent: bool = True) -> Progress:
    """Return a student that has learned nothing."""
    policy, average = (ContextPolicy(view.width, hidden=HIDDEN if recurrent else 0, seed=seed) for _ in range(2))
    optimizer = torch.optim.Adam(policy.parameters(), lr=recipe.rate, fused=True)
    return Progress(policy, average, optimizer, np.random.default_rng(seed), deque(maxlen=recipe.kept))


def teach(
    progress: Progress,
    view: View,
    chocs: Floats,
    recipe: Recipe,
    *,
    until: int | None = None,
    watch: Callable[[Progress], None] | None = None,
) -> Progress:
    """Go on teaching; return `progress`.

    Args:
        progress: changed in place.
        view: what the student sees.
        chocs: [g] group means of the simulators.
        recipe: how much; its number of iterations sets the pace of the learning rate.
        until: stop after this round; None goes on to the recipe's end.
        watch: called after every round.
    """
    per_group = max(1, recipe.users // len(chocs))
    last = recipe.iterations if until is None else min(until, recipe.iterations)
    while progress.iteration < last:
        users = draw_users(progress.rng, chocs, per_group, kale_shift=recipe.kale_shift)
        explore = recipe.explore if progress.iteration % 3 == 2 else 0.0
        lies = lies_of(len(users), recipe.lies, progress.rng) if recipe.lies else None
        found = labelled_episodes(progress.policy, view, users, progress.rng, explore, recipe.noise, lies)
        progress.episodes.append(found)
        progress.user_steps += len(users) * HORIZON
        done = progress.iteration / recipe.iterations
        progress.optimizer.param_groups[0]["lr"] = recipe.rate * (1.0 - 0.97 * done)
        progress.losses.append(_learn(progress, recipe))
        progress.iteration += 1
        if watch is not None:
            watch(progress)
    return progress


def lies_of(users: int, most: float, rng: np.random.Generator) -> Singles:
    """Return [T, n] logarithms of what users multiply their reports by, as `Recipe.lies` has them with e = `most`."""
    constant = rng.random(users) < 0.5
    once, anew = rng.uniform(-most, most, users), rng.uniform(-most, most, (HORIZON, users))
    return np.where(constant, once, anew).astype(np.float32)


def told(observed: Singles, lie: Singles | float) -> Singles:
    """Return observations [n, 3] in which the reward is multiplied by exp(`lie`) ([n] or one for all)."""
    changed = observed.copy()
    changed[:, 2] *= np.exp(lie)
    return changed


def labelled_episodes(
    policy: ContextPolicy,
    view: View,
    users: LtsUsers,
    rng: np.random.Generator,
    explore: float,
    noise: float,
    lies: Singles | None = None,
) -> tuple[Singles, Singles]:
    """Roll the student out once; return its inputs [n, T, f] and the planner's advantages [n, T] along its way.

    What it sees of rewards is multiplied by exp(`lies`) ([T, n]); None for what is true.
    """
    planned = plan(users)
    env = LtsEnv(users, noise=noise)
    observed, _ = env.reset(seed=int(rng.integers(2**31)))
    fixed, actions = view.fixed(observed, users.group), np.zeros(len(users), np.int64)
    seen = np.empty((len(users), env.horizon, view.width), np.float32)
    advantages = np.empty((len(users), env.horizon), np.float32)
    step = policy.stepper(len(users))
    with torch.no_grad():
        for time in range(env.horizon):
            seen[:, time] = view.inputs(observed, actions, fixed)
            advantages[:, time] = planned.advantage_at(time, env.npe)
            logit = step(torch.from_numpy(seen[:, time]))
            strong = logit[:, 0].numpy() > 0.0
            if explore > 0.0:
                strong = np.where(rng.random(len(users)) < explore, rng.random(len(users)) < 0.5, strong)
            actions = documents(strong)
            observed, *_ = env.step(actions)
            if lies is not None:
                observed = told(observed, lies[time])
    return seen, advantages


def _learn(progress: Progress, recipe: Recipe) -> float:
    users = [len(advantage) for _, advantage in progress.episodes]
    ends, total = np.cumsum(users), 0.0
    for _ in range(recipe.batches):
        rows = progress.rng.integers(0, ends[-1], recipe.batch)
        rounds = np.searchsorted(ends, rows, side="right")
        places = list(zip(rounds.tolist(), (rows - (ends - users)[rounds]).tolist(), strict=True))
        seen, advantage = (
            torch.from_numpy(np.stack([progress.episodes[at][part][row] for at, row in places])) for part in (0, 1)
        )
        logit = progress.policy(seen)[0][..., 0]
        loss = (advantage.abs() * functional.softplus(-logit * advantage.sign())).mean()
        progress.optimizer.zero_grad()
        loss.backward()
        clip_grad_norm_(progress.policy.parameters(), 1.0)
        progress.optimizer.step()
        with torch.no_grad():
            for kept, new in zip(progress.average.parameters(), progress.policy.parameters(), strict=True):
                kept.lerp_(new, 1.0 - AVERAGED)
        total += float(loss.detach())
    return total / recipe.batches
