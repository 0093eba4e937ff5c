"""A world whose form is known: a student taught where its numbers were fitted to the log, beside students of a set.

``python -m tests.soak.parametric [--seeds 0,1,2] [--biases 0,3] [--users 400] [--effort 1] [--out FOLDER]``. The log is
the study's: 400 users of long-term satisfaction at mu 14, kale 4, shown clickbait of .2 to .6. The set has the training
groups of LTS3, and a kale that is off by the bias. All serve the same 1,000 fresh users of the true world, the best
document each time; what was earned is compared user by user. With `--out`, a run goes on where one was cut short.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from decision.batch import Floats
from simulators.environments.lts.env import KALE, draw_users
from simulators.environments.lts.form import FORM
from simulators.environments.lts.planner import plan, returns_of_plan
from simulators.environments.lts.tasks import task
from simulators.learned.fitting import Fitted, fitted
from simulators.learned.groups import GroupView
from simulators.learned.logs import logged
from simulators.learned.lookahead import returns_in_truth
from simulators.trainers.contract import Plan, candidates_of
from simulators.trainers.parametric import ROUNDS, Recipe, Worlds, taught_in
from tests.soak.kept import kept
from tests.worlds.satisfaction import MU

DEPLOYED = 1_000


def set_of(bias: float) -> Floats:
    """Return [g, 2] the numbers of the groups of LTS3, with a kale that is off by `bias`."""
    chocs = task("3").chocs
    return np.stack([chocs, np.full(len(chocs), KALE + bias)], axis=1)


def taught_and_tried(
    seed: int, bias: float | None, *, users: int = 400, deployed: int = DEPLOYED, effort: float = 1.0
) -> tuple[Floats, Fitted | None]:
    """Return [n] what a student earns users of the true world, and what was fitted.

    Args:
        seed: of the log, the users and the training.
        bias: of the set that it is taught in; None for worlds fitted to the log.
        users: in the log.
        deployed: users that the student serves.
        effort: rounds, in shares of the usual.
    """
    log = logged(draw_users(np.random.default_rng([seed, 1]), MU, users), seed)
    served = draw_users(np.random.default_rng([seed, 2]), MU, deployed)
    offered, view = candidates_of(log, Plan(candidates="all")), GroupView(None, 1)
    found = None
    if bias is None:
        found = fitted(FORM, log, seed)
        found_drawn = found.drawn
        worlds = Worlds(FORM, lambda rng, n: (found_drawn(rng, n), np.zeros(n, np.int64)), found.noise)
    else:
        groups = set_of(bias)
        worlds = Worlds(FORM, lambda rng, n: (groups[rng.integers(0, len(groups), n)], np.zeros(n, np.int64)), 0.01)
    recipe = Recipe(iterations=max(1, round(ROUNDS * effort)))
    policy, _ = taught_in(worlds, log, view, offered, recipe, seed)
    return returns_in_truth(policy, view, tuple(offered.tolist()), served, seed, log), found


def optimum(seed: int, deployed: int = DEPLOYED) -> Floats:
    """Return [n] the best that can be done for the same users."""
    served = draw_users(np.random.default_rng([seed, 2]), MU, deployed)
    return returns_of_plan(served, plan(served))


def found_in(given: argparse.Namespace, seed: int, bias: float | None) -> dict[str, Any]:
    """Return what `taught_and_tried` found, in this run or an earlier one."""

    def work() -> dict[str, Any]:
        started = time.process_time()
        returns, found = taught_and_tried(seed, bias, users=given.users, effort=given.effort)
        out: dict[str, Any] = {"returns": returns.tolist(), "cpu_s": time.process_time() - started}
        return out if found is None else out | {"fitted": found.group.tolist(), "errors": found.errors.tolist()}

    way = "fitted" if bias is None else f"set{bias:g}"
    return kept(given.out, f"{way}-{seed}-{given.users}-{given.effort:g}", work)


def main() -> None:
    """Run all seeds, print a table, then one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--biases", default="0,3")
    parser.add_argument("--users", type=int, default=400)
    parser.add_argument("--effort", type=float, default=1.0)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    seeds = [int(seed) for seed in given.seeds.split(",")]
    ways: list[float | None] = [None, *(float(bias) for bias in given.biases.split(","))]
    best = np.array([optimum(seed) for seed in seeds])
    found = {bias: [found_in(given, seed, bias) for seed in seeds] for bias in ways}
    returns = {bias: np.array([one["returns"] for one in runs]) for bias, runs in found.items()}
    rng, result = np.random.default_rng(0), {}
    picked = rng.integers(0, len(seeds), (1_000, len(seeds)))
    users = rng.integers(0, best.shape[1], (1_000, len(seeds), best.shape[1]))
    print(f"{'taught in':<12}{'return':>9}{'/ optimum':>11}{'fitted less it':>16}  95%, seeds and users", flush=True)
    for bias, each in returns.items():
        name = "fitted" if bias is None else f"set{bias:+g}"
        gap = returns[None] - each
        low, high = np.quantile(
            np.take_along_axis(gap[picked], users, axis=2).mean(axis=(1, 2)), (0.025, 0.975)
        ).tolist()
        result[name] = {
            "return": float(each.mean()),
            "of_optimum": float(each.mean() / best.mean()),
            "by_seed": (each.mean(axis=1) / best.mean(axis=1)).tolist(),
            "fitted_over": float(gap.mean()),
            "fitted_over_ci": [low, high],
            "cpu_s": float(np.mean([one["cpu_s"] for one in found[bias]])),
        }
        row = result[name]
        numbers = f"{row['return']:>9.1f}{row['of_optimum']:>11.3f}{row['fitted_over']:>+16.1f}"
        print(f"{name:<12}{numbers}  [{low:.1f}, {high:.1f}]")
    result["fitted"] |= {key: [one[key] for one in found[None]] for key in ("fitted", "errors")}
    print(json.dumps({"name": "parametric", "seeds": seeds, "methods": result}))


if __name__ == "__main__":
    main()
