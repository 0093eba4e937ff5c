"""Logs of long-term satisfaction: what a policy of limited support shows, how likely it is to, and what comes of it."""

from __future__ import annotations

import numpy as np

from simulators.environments.lts.env import DOCUMENTS, HORIZON, Counts, LtsEnv, LtsUsers, Singles
from simulators.learned.trajectories import Catalogue, Scale, Trajectories

SHOWN = (6, 18)
"""First and last document that the logging policy shows: clickbait from .2 to .6."""
CHANGE = 0.3
"""Probability with which it draws anew instead of repeating the last document."""

LTS = Catalogue(
    tuple(f"document-{number}" for number in range(DOCUMENTS)),
    (np.arange(DOCUMENTS) / DOCUMENTS).astype(np.float32)[:, None],
    np.array([0.4], np.float32),
    np.array([0.2], np.float32),
)
"""The documents, by their clickbait; about the middle of what is shown, and half its range."""
LTS_SCALE = Scale("log", 1.5, least=0.05)


def habitual(last: Counts | None, users: int, rng: np.random.Generator) -> tuple[Counts, Singles]:
    """Return the logging policy's next documents [n] and their propensities, after `last` ([n] or None at first)."""
    low, high = SHOWN
    drawn = rng.integers(low, high + 1, users)
    width = high - low + 1
    if last is None:
        return drawn, np.full(users, 1.0 / width, np.float32)
    documents = np.where(rng.random(users) < CHANGE, drawn, last)
    again = CHANGE / width + (1.0 - CHANGE) * (documents == last)
    return documents, again.astype(np.float32)


def logged(users: LtsUsers, seed: int, *, horizon: int = HORIZON) -> Trajectories:
    """Return what the logging policy does with `users` in long-term satisfaction."""
    rng, env = np.random.default_rng(seed), LtsEnv(users, horizon=horizon)
    env.reset(seed=seed)
    n = len(users)
    documents = np.empty((n, horizon), np.int64)
    rewards, propensities = np.empty((n, horizon), np.float32), np.empty((n, horizon), np.float32)
    last = None
    for time in range(horizon):
        last, propensities[:, time] = habitual(last, n, rng)
        documents[:, time] = last
        rewards[:, time] = env.step(last)[1]
    return Trajectories(documents, rewards, propensities, LTS, LTS_SCALE)
