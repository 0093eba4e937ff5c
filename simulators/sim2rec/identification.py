"""System identification: guess the user by likelihood among many, and act as the planner would for the best guess.

No learning at all. It knows the form of the dynamics, which a learned simulator does not grant; it bounds what exact
inference of the parameters is worth.
"""

from __future__ import annotations

import numpy as np

from decision.batch import Floats
from simulators.environments.lts.env import DOCUMENTS, REWARD_NOISE, LtsEnv, LtsUsers, draw_users
from simulators.environments.lts.planner import documents, plan

PARTICLES = 1000


def returns_of_identification(
    users: LtsUsers, chocs: Floats, seed: int, *, particles: int = PARTICLES, noise: float = REWARD_NOISE
) -> Floats:
    """Return [n] what acting on the likeliest of `particles` users earns each user in one episode.

    Args:
        users: the true ones, hidden.
        chocs: group means that particles are drawn from, one drawn per particle with replacement.
        seed: of particles and rewards.
        particles: users guessed among.
        noise: standard deviation of the reward.
    """
    rng = np.random.default_rng(seed)
    guesses = draw_users(rng, rng.choice(chocs, particles), 1)
    planned = plan(guesses)
    env = LtsEnv(users, noise=noise)
    env.reset(seed=seed)
    n = len(users)
    npe = np.tile(0.5 / (1.0 - guesses.memory), (n, 1)).astype(np.float32)
    misfit, total = np.zeros((n, particles), np.float32), np.zeros(n)
    scaled = np.float32(1.0) - guesses.memory
    nodes = planned.advantage.shape[2]
    best = np.zeros(n, np.int64)
    for time in range(env.horizon):
        at = np.clip((npe[np.arange(n), best] * scaled[best] + 1.0) * (nodes - 1) / 2.0, 0.0, nodes - 1.0)
        actions = documents(planned.advantage[time, best, np.round(at).astype(np.int64)] > 0.0)
        clickbait = (actions / DOCUMENTS).astype(np.float32)[:, None]
        expected = (guesses.kale + clickbait * (guesses.choc - guesses.kale)) / (
            1.0 + np.exp(-guesses.sensitivity * npe)
        )
        _, reward, *_ = env.step(actions)
        total += reward
        misfit += np.square(reward[:, None] - expected)
        npe = guesses.memory * npe + np.float32(1.0) - 2.0 * clickbait
        best = misfit.argmin(axis=1)
    return total
