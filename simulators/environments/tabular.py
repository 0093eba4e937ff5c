"""Random tabular decision processes and a runner that plays many of them at once.

The instance family is the paper's: rewards uniform on [0, 1], next states Dirichlet(1), one fixed first state
(Li, Huang, Shen, Yang 2023, section 6). The runner plays n independent runs in step; a planner is asked for new
policies only after counts have grown (lazy re-planning keeps safety: time-uniform bounds stay valid when stale).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from decision.batch import Floats, Ints
from decision.conservative.tabular.confidence import Counts
from decision.conservative.tabular.process import Process, boltzmann, optimal_q_values, value


class Instance(NamedTuple):
    """n random processes with a safe baseline and a threshold.

    Attributes:
        process: the n processes.
        baseline: [n, H, S, A] Boltzmann policy on the optimal action values.
        best: [n] optimal values.
        baseline_value: [n] values of the baseline.
        gamma: [n] threshold (1 - alpha) times the baseline's value.
    """

    process: Process
    baseline: Floats
    best: Floats
    baseline_value: Floats
    gamma: Floats


class Plan(NamedTuple):
    """What an algorithm plays until it is asked again: per episode, `policy` with probability `weight`, else `other`.

    Attributes:
        policy: [n, H, S, A].
        other: [n, H, S, A], or None where `weight` is 1 throughout.
        weight: [n] probability of `policy`, or None for 1.
        lower: [n] lower bound claimed for `policy`, or None where no claim is made.
    """

    policy: Floats
    other: Floats | None = None
    weight: Floats | None = None
    lower: Floats | None = None


class Played(NamedTuple):
    """What n runs of K episodes came to.

    Attributes:
        regret: [n] summed optimal minus executed expected return.
        violations: [n] episodes whose expected return was below the threshold.
        worst: [n] lowest expected return minus threshold, at most 0.
        first_other: [n] first episode that differed from the baseline (K when none did).
        missed: [n] share of plans whose claimed lower bound lay above the true value.
        curve: [points, n] regret at `at`.
        at: [points] episodes of the curve.
        counts: the statistics at the end.
    """

    regret: Floats
    violations: Floats
    worst: Floats
    first_other: Ints
    missed: Floats
    curve: Floats
    at: Ints
    counts: Counts


Planner = Callable[[Counts, int], Plan]


def random_instances(
    seeds: list[int], *, states: int, actions: int, horizon: int, eta: float, alpha: float
) -> Instance:
    """Return one random instance per seed.

    Args:
        seeds: one process each.
        states: S.
        actions: A.
        horizon: H.
        eta: sharpness of the baseline, 1 / reward units.
        alpha: share of the baseline's value that may be given up, in (0, 1).
    """
    transitions, rewards = [], []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        rewards.append(rng.random((horizon, states, actions)))
        transitions.append(rng.dirichlet(np.ones(states), size=(horizon, states, actions)))
    process = Process(np.array(transitions), np.array(rewards))
    q = optimal_q_values(process)
    baseline = boltzmann(q, eta)
    baseline_value = value(process, baseline)
    return Instance(process, baseline, q[:, 0, 0].max(-1), baseline_value, (1.0 - alpha) * baseline_value)


def play(
    instance: Instance,
    planner: Planner,
    *,
    episodes: int,
    rng: np.random.Generator,
    counts: Counts | None = None,
    lazy: float = 1e-3,
    minimum: int = 1,
    progress: Callable[[int], None] | None = None,
) -> Played:
    """Play `episodes` episodes of every run in `instance` under `planner`.

    Args:
        instance: the runs.
        planner: counts and episode -> what to play next.
        episodes: K.
        rng: draws of actions, rewards, states and coins.
        counts: statistics to begin with (offline data); none by default.
        lazy: re-plan every ``max(minimum, lazy * k)`` episodes.
        minimum: fewest episodes between two plans.
        progress: called with the episodes done, now and then.
    """
    process, baseline = instance.process, instance.baseline
    n, horizon, states, actions = process.rewards.shape
    counts = Counts.zeros(n, horizon, states, actions) if counts is None else Counts(*(c.copy() for c in counts))
    rows = np.arange(n)
    ahead = process.transitions.cumsum(-1)
    regret, violations, missed = np.zeros(n), np.zeros(n), np.zeros(n)
    worst = np.zeros(n)
    first_other = np.full(n, episodes)
    curve: list[Floats] = []
    at: list[int] = []
    next_plan, plans = 0, 0
    plan, cdf, other_cdf, executed = Plan(baseline), baseline, baseline, instance.baseline_value
    for k in range(episodes):
        if k >= next_plan:
            plan = planner(counts, k)
            cdf = plan.policy.cumsum(-1)
            executed = own = value(process, plan.policy)
            if plan.other is not None and plan.weight is not None:
                other_cdf = plan.other.cumsum(-1)
                executed = plan.weight * own + (1.0 - plan.weight) * value(process, plan.other)
            if plan.lower is not None:
                missed += plan.lower > own + 1e-9
            plans += 1
            next_plan = k + max(minimum, int(lazy * k))
            at.append(k)
            curve.append(regret.copy())
            if progress is not None:
                progress(k)
            share = np.ones(n) if plan.weight is None else plan.weight
            differs = (np.abs(plan.policy - baseline).max((1, 2, 3)) > 1e-12) & (share > 0)
            first_other = np.where(differs & (first_other == episodes), k, first_other)
        regret += instance.best - executed
        shortfall = executed - instance.gamma
        violations += shortfall < -1e-9
        worst = np.minimum(worst, shortfall)
        first = rng.random(n) < plan.weight if plan.weight is not None else None
        state = np.zeros(n, dtype=np.int64)
        u = rng.random((horizon, 3, n))
        for h in range(horizon):
            probability = cdf[rows, h, state]
            if first is not None:
                probability = np.where(first[:, None], probability, other_cdf[rows, h, state])
            action = np.minimum((u[h, 0][:, None] >= probability).sum(-1), actions - 1)
            won = u[h, 1] < process.rewards[rows, h, state, action]
            following = np.minimum((u[h, 2][:, None] >= ahead[rows, h, state, action]).sum(-1), states - 1)
            counts.visits[rows, h, state, action] += 1.0
            counts.rewards[rows, h, state, action] += won
            counts.moves[rows, h, state, action, following] += 1.0
            state = following
    at.append(episodes)
    curve.append(regret.copy())
    return Played(
        regret,
        violations,
        worst,
        first_other,
        missed / max(plans, 1),
        np.array(curve),
        np.array(at),
        counts,
    )
