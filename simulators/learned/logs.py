"""Logs of long-term satisfaction: what a policy of limited support shows, how likely it is to, and what comes of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from simulators.environments.lts.env import DOCUMENTS, HORIZON, Counts, LtsEnv, LtsUsers, Singles
from simulators.environments.lts.planner import Plan, documents
from simulators.learned.trajectories import Catalogue, Scale, Trajectories

SHOWN = (6, 18)
"""First and last document that the logging policy shows: clickbait from .2 to .6."""
CHANGE = 0.3
"""Probability with which it draws anew instead of repeating the last document."""
AT_RANDOM = 0.2
"""Share of the planner's documents that are drawn from all."""
_STEPS = ("actions", "rewards", "propensities")

LTS = Catalogue(
    tuple(f"document-{number}" for number in range(DOCUMENTS)),
    (np.arange(DOCUMENTS) / DOCUMENTS).astype(np.float32)[:, None],
    np.array([0.4], np.float32),
    np.array([0.2], np.float32),
)
"""The documents, by their clickbait; about the middle of what is shown, and half its range."""
LTS_SCALE = Scale("log", 1.5, least=0.05)


def habitual(
    last: Counts | None, users: int, rng: np.random.Generator, shown: tuple[int, int] = SHOWN
) -> tuple[Counts, Singles]:
    """Return the logging policy's next documents [n] and their propensities, after `last` ([n] or None at first).

    Args:
        last: documents shown before.
        users: n.
        rng: source of the draws.
        shown: first and last document that it shows.
    """
    low, high = shown
    drawn = rng.integers(low, high + 1, users)
    width = high - low + 1
    if last is None:
        return drawn, np.full(users, 1.0 / width, np.float32)
    documents = np.where(rng.random(users) < CHANGE, drawn, last)
    again = CHANGE / width + (1.0 - CHANGE) * (documents == last)
    return documents, again.astype(np.float32)


def planned(npe: Singles, optimum: Plan, time: int, rng: np.random.Generator) -> tuple[Counts, Singles]:
    """Return documents [n] and propensities of a planner who knows each user, a fifth of whose draws are uniform."""
    best = documents(optimum.advantage_at(time, npe) > 0.0)
    found = np.where(rng.random(len(npe)) < AT_RANDOM, rng.integers(0, DOCUMENTS, len(npe)), best)
    propensity = AT_RANDOM / DOCUMENTS + (1.0 - AT_RANDOM) * (found == best)
    return found, propensity.astype(np.float32)


def logged(
    users: LtsUsers, seed: int, *, horizon: int = HORIZON, shown: tuple[int, int] = SHOWN, plan: Plan | None = None
) -> Trajectories:
    """Return what the logging policy does with `users` in long-term satisfaction.

    Args:
        users: who they are.
        seed: of draws and rewards.
        horizon: steps of each user.
        shown: first and last document that it shows.
        plan: of the same users; then their planner draws instead, a fifth at random.
    """
    rng, env = np.random.default_rng(seed), LtsEnv(users, horizon=horizon)
    env.reset(seed=seed)
    n = len(users)
    shown_to = np.empty((n, horizon), np.int64)
    rewards, propensities = np.empty((n, horizon), np.float32), np.empty((n, horizon), np.float32)
    last = None
    for time in range(horizon):
        if plan is None:
            last, propensities[:, time] = habitual(last, n, rng, shown)
        else:
            last, propensities[:, time] = planned(env.npe, plan, time, rng)
        shown_to[:, time] = last
        rewards[:, time] = env.step(last)[1]
    return Trajectories(shown_to, rewards, propensities, LTS, LTS_SCALE)


def mixed(parts: Sequence[Trajectories]) -> Trajectories:
    """Return the logs of several policies at the same time as one; each is a version, by its place."""
    joined: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _STEPS}
    sizes = [len(part) for part in parts]
    drew = np.repeat(np.arange(len(parts)), sizes)[:, None] + np.zeros((1, parts[0].steps), np.int64)
    names = tuple(str(number + 1) for number in range(len(parts)))
    return Trajectories(**joined, catalogue=parts[0].catalogue, scale=parts[0].scale, versions=drew, names=names)
