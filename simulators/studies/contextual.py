"""Study of conservative contextual algorithms on linear rewards: who keeps a promise in total, who in every round.

Actions have d features in [0, 1], rewards are Bernoulli with mean linear in them, the baseline takes the third-best
action and its expected reward is known. Counted per run: regret, rounds in which the distribution played is worth less
than ``1 - alpha`` times the baseline, and rounds by which the total so far is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from decision.batch import Floats
from decision.conservative.bandit.clucb import CLUCB, Chosen
from decision.conservative.bandit.ridge import Ridge
from decision.conservative.bandit.squarecb import Budget, ConservativeSquareCB
from decision.conservative.bandit.stagewise_thompson import StagewiseThompson
from simulators.studies.interval import of_mean

ACTIONS, DIM, RANK, ALPHA = 10, 6, 3, 0.1

Progress = Callable[[str, float], None]


class World:
    """One run: features, mean rewards and draws, the same for every algorithm."""

    def __init__(self, seed: int, rounds: int) -> None:
        rng = np.random.default_rng([seed, 31])
        theta = rng.dirichlet(np.ones(DIM))
        self.x = rng.random((rounds, ACTIONS, DIM))
        self.mean = self.x @ theta
        self.baseline = np.argsort(-self.mean, axis=1)[:, RANK - 1]
        self.baseline_reward = self.mean[np.arange(rounds), self.baseline]
        self.u = rng.random((rounds, 2))
        self.normal = rng.normal(size=(rounds, DIM))

    def draw(self, t: int, pmf: Floats) -> tuple[int, float]:
        """Return the action drawn from `pmf` in round `t`, and its reward."""
        action = int(min((self.u[t, 0] >= pmf.cumsum()).sum(), ACTIONS - 1))
        return action, float(self.u[t, 1] < self.mean[t, action])


def run(seeds: Sequence[int], *, rounds: int, progress: Progress) -> dict[str, Any]:
    """Return per algorithm ``regret``, ``violations``, ``total_violations`` and ``explored``, each with ``X_ci``."""
    results: dict[str, Any] = {}
    for index, (name, play) in enumerate(ALGORITHMS.items()):
        progress(f"contextual: {name}", index / len(ALGORITHMS))
        rows = [_measured(World(seed, rounds), play) for seed in seeds]
        results[name] = {}
        for key in rows[0]:
            values = [row[key] for row in rows]
            results[name] |= {key: float(np.mean(values)), f"{key}_ci": of_mean(values, low=0.0)}
    return {"rounds": rounds, "alpha": ALPHA, "algorithms": results}


def _measured(world: World, play: Callable[[World], tuple[Floats, Floats]]) -> dict[str, float]:
    pmf, explored = play(world)
    value = (pmf * world.mean).sum(1)
    owed = (1.0 - ALPHA) * world.baseline_reward
    return {
        "regret": float((world.mean.max(1) - value).sum()),
        "violations": float((value < owed - 1e-9).sum()),
        "total_violations": float((np.cumsum(value - owed) < -1e-9).sum()),
        "explored": float(explored.mean()),
    }


def _baseline(world: World) -> tuple[Floats, Floats]:
    return np.eye(ACTIONS)[world.baseline], np.zeros(world.baseline.size)


def _linucb(world: World) -> tuple[Floats, Floats]:
    """The same optimism without a promise."""
    rounds = world.baseline.size
    pmf = np.zeros((rounds, ACTIONS))
    state = Ridge.prior(DIM)
    rule = CLUCB(alpha=ALPHA)
    for t in range(rounds):
        x = world.x[t]
        beta = state.radius(noise=rule.noise, norm=rule.norm, delta=rule.delta)
        pmf[t, int((x @ state.estimate() + beta * state.width(x)).argmax())] = 1.0
        action, reward = world.draw(t, pmf[t])
        state = state.after(x[action], reward)
    return pmf, np.ones(rounds)


def _clucb(world: World) -> tuple[Floats, Floats]:
    rounds = world.baseline.size
    pmf, explored = np.zeros((rounds, ACTIONS)), np.zeros(rounds)
    rule = CLUCB(alpha=ALPHA)
    state = rule.init(DIM)
    for t in range(rounds):
        known = float(world.baseline_reward[t])
        chosen: Chosen = rule.choose(state, world.x[t], baseline=int(world.baseline[t]), baseline_reward=known)
        pmf[t, chosen.action], explored[t] = 1.0, chosen.explores
        action, reward = world.draw(t, pmf[t])
        state = rule.update(state, chosen, world.x[t, action], reward, baseline_reward=known)
    return pmf, explored


def _squarecb(slack: float) -> Callable[[World], tuple[Floats, Floats]]:
    def play(world: World) -> tuple[Floats, Floats]:
        rounds = world.baseline.size
        pmf, explored = np.zeros((rounds, ACTIONS)), np.zeros(rounds)
        rule = ConservativeSquareCB(regret=lambda m: DIM * float(np.log1p(m / DIM)) + 1.0, alpha=ALPHA, slack=slack)
        budget, oracle = Budget(), Ridge.prior(DIM)
        for t in range(rounds):
            known = float(world.baseline_reward[t])
            scores = world.x[t] @ oracle.estimate()
            played = rule.play(budget, scores, baseline=int(world.baseline[t]), baseline_reward=known)
            pmf[t], explored[t] = played.pmf, played.explores
            action, reward = world.draw(t, played.pmf)
            if played.explores:
                oracle = oracle.after(world.x[t, action], reward)
            budget = rule.after(budget, played, baseline_reward=known)
        return pmf, explored

    return play


def _thompson(world: World) -> tuple[Floats, Floats]:
    rounds = world.baseline.size
    pmf, explored = np.zeros((rounds, ACTIONS)), np.zeros(rounds)
    rule = StagewiseThompson(alpha=ALPHA)
    state = Ridge.prior(DIM)
    for t in range(rounds):
        known, x = float(world.baseline_reward[t]), world.x[t]
        pmf[t] = rule.pmf(state, x, world.normal[t], baseline=int(world.baseline[t]), baseline_reward=known)
        explored[t] = pmf[t].max() == 1.0
        action, reward = world.draw(t, pmf[t])
        state = state.after(x[action], reward)
    return pmf, explored


ALGORITHMS: dict[str, Callable[[World], tuple[Floats, Floats]]] = {
    "linucb": _linucb,
    "clucb": _clucb,
    "conservative_squarecb": _squarecb(1.0),
    "conservative_squarecb_tenth": _squarecb(0.1),
    "stagewise_thompson": _thompson,
    "baseline": _baseline,
}
