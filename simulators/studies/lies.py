"""Users who lie about what they got, to a policy with memory: what they move, and what teaching with lies does.

A user who wants one of two documents reports r exp(d) in place of his reward r, for good. Shares of the strong document
and returns are those of long-term satisfaction (`simulators.environments.lts`), the third task; returns are true ones.
Students see the mean of their group. After Bai et al. (2025, "RAT: Adversarial Attacks on Deep Reinforcement Agents for
Targeted Behaviors", AAAI), whose attackers perturb what is observed; noise in training for robustness is an old device
(Cohen, Rosenfeld and Kolter 2019 prove what it is worth for classifiers), here it is put on what users report.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from simulators.environments.lts.env import LtsEnv, LtsUsers, draw_users
from simulators.environments.lts.planner import documents
from simulators.environments.lts.tasks import TARGET, task
from simulators.sim2rec.network import ContextPolicy
from simulators.sim2rec.student import Recipe, beginner, teach, told
from simulators.sim2rec.views import GroupMean, View
from simulators.studies.interval import of_mean

ROUNDS, USERS = 20, 600
LIES = (0.0, 0.1, 0.3, 1.0)
DEFENCES = {"none": 0.0, "taught": 1.0}
"""Largest lie that the student was taught with."""
ATTACK = 1.0
VIEW = View(embedding=GroupMean())


def student_of(seed: int, lies: float, rounds: int = ROUNDS) -> ContextPolicy:
    """Return a student that was taught with lies of up to `lies`."""
    recipe = Recipe(iterations=rounds, lies=lies)
    return teach(beginner(VIEW, recipe, seed), VIEW, task("3").chocs, recipe).average


def attacked(policy: ContextPolicy, users: LtsUsers, seed: int, lie: float) -> tuple[float, float]:
    """Return the share of strong documents, and the mean true return, where all `users` report r exp(`lie`)."""
    env = LtsEnv(users)
    observed, _ = env.reset(seed=seed)
    n = len(users)
    fixed, actions = VIEW.fixed(observed, users.group), np.zeros(n, np.int64)
    step, total, strong = policy.stepper(n), np.zeros(n), 0.0
    with torch.no_grad():
        for _ in range(env.horizon):
            chosen = step(torch.from_numpy(VIEW.inputs(observed, actions, fixed)))[:, 0].numpy() > 0.0
            actions = documents(chosen)
            strong += float(chosen.mean())
            observed, reward, *_ = env.step(actions)
            observed = told(observed, lie)
            total += reward
    return strong / env.horizon, float(total.mean())


def run(
    seeds: Sequence[int], *, rounds: int = ROUNDS, users: int = USERS, progress: Callable[[str, float], None]
) -> dict[str, Any]:
    """Return {DEFENCE: {"share_moved", "return_lost", "clean", "share_D", "return_D"}}, each with ``X_ci``.

    ``share_moved`` is the share of decisions that a lie of `ATTACK` moves to the strong document, ``return_lost`` the
    share of the return that it costs, ``clean`` the return without a lie.

    Args:
        seeds: one or more.
        rounds: of teaching.
        users: who are decided for.
        progress: told of the seeds that are done.
    """
    runs: list[dict[str, dict[str, float]]] = []
    for number, seed in enumerate(seeds):
        progress(f"users who lie, seed {seed}", number / len(seeds))
        runs.append(measured(seed, rounds, users))
    out: dict[str, Any] = {}
    for defence in DEFENCES:
        out[defence] = {}
        for key in runs[0][defence]:
            values = [run[defence][key] for run in runs]
            out[defence] |= {key: float(np.mean(values)), f"{key}_ci": of_mean(values)}
    return out


def measured(seed: int, rounds: int = ROUNDS, users: int = USERS) -> dict[str, dict[str, float]]:
    """Return per defence the share of the target and the return without and under each lie."""
    people = draw_users(np.random.default_rng(99), np.array([TARGET]), users)
    out: dict[str, dict[str, float]] = {}
    for defence, lies in DEFENCES.items():
        policy = student_of(seed, lies, rounds)
        out[defence] = {}
        for lie in LIES:
            share, earned = attacked(policy, people, seed + 1, lie)
            out[defence] |= {f"share_{lie:g}": share, f"return_{lie:g}": earned}
        row = out[defence]
        row["clean"] = row["return_0"]
        row["share_moved"] = row[f"share_{ATTACK:g}"] - row["share_0"]
        row["return_lost"] = 1.0 - row[f"return_{ATTACK:g}"] / row["return_0"]
    return out
