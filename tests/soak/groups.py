"""A group that no training saw, beside the same student taught in it: what its own embedding is worth.

``python -m tests.soak.groups [--tasks 1,2,3] [--seeds 0,1,2] [--effort 1] [--out FOLDER]``. The log has the training
groups of a task of long-term satisfaction, 40 users each, and 12 users of mu 14, too few to be trained on; the form is
known (``parametric``). The rival's log has 400 users of mu 14 alone, and as many rounds. Both serve the same 1,000
fresh users of mu 14, drawn as the service draws, and the best document each time. With `--out`, a run goes on where
one was cut short.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from decision.batch import Floats
from simulators.environments.lts.env import LtsEnv, LtsUsers, draw_users
from simulators.environments.lts.planner import plan, returns_of_plan
from simulators.environments.lts.tasks import task
from simulators.learned.ensembles import Ensemble
from simulators.learned.logs import logged
from simulators.learned.trajectories import Trajectories
from simulators.trainers.contract import Plan, Taught
from simulators.trainers.parametric import GROUPED_ROUNDS, ROUNDS, train
from tests.soak.kept import kept
from tests.worlds.satisfaction import MU

USERS, FEW, RIVAL, DEPLOYED = 40, 12, 400, 1_000
NEW = "new"


def grouped(name: str, seed: int) -> Trajectories:
    """Return the log of a task's training groups, with a few users of the new one."""
    chocs = np.append(task(name).chocs, MU)
    users = draw_users(np.random.default_rng([seed, 1]), chocs, USERS)
    few = (users.group < len(chocs) - 1) | (np.arange(len(users)) % USERS < FEW)
    names = (*(f"mu{choc:g}" for choc in chocs[:-1]), NEW)
    log = replace(logged(users, seed), groups=users.group, group_names=names, grouped_by="city")
    return log.take(np.flatnonzero(few))


def earned(taught: Taught, log: Trajectories, users: LtsUsers, seed: int, *, greedy: bool) -> float:
    """Return the mean of what a policy earns fresh users of the new group."""
    rng, env, n = np.random.default_rng([seed, 4]), LtsEnv(users), len(users)
    env.reset(seed=seed)
    features, code = log.catalogue.features, log.group_names.index(NEW) if log.grouped_by else 0
    group, shown, response = np.full(n, code), np.zeros((n, 1), np.float32), np.zeros(n, np.float32)
    state, total = taught.policy.start(n), np.zeros(n)
    for step in range(env.horizon):
        inputs = taught.view.inputs(response, shown, group, first=step == 0)
        with torch.no_grad():
            logits, state = taught.policy.step(torch.from_numpy(inputs), state)
        noise: Floats = np.zeros(logits.shape) if greedy else rng.gumbel(size=logits.shape)
        documents = taught.offered[(logits.numpy() + noise).argmax(axis=1)]
        reward = env.step(documents)[1]
        total += reward
        shown, response = features[documents], log.scale.response(reward)
    return float(total.mean())


def tried(name: str, seed: int, effort: float) -> dict[str, float]:
    """Return shares of the optimum of the student of a task, or, for ``home``, of the rival."""
    started = time.process_time()
    users = draw_users(np.random.default_rng([seed, 2]), MU, DEPLOYED)
    best = float(returns_of_plan(users, plan(users)).mean())
    if name == "home":
        log = logged(draw_users(np.random.default_rng([seed, 3]), MU, RIVAL), seed)
        effort *= GROUPED_ROUNDS / ROUNDS
    else:
        log = grouped(name, seed)
    nothing: Any = None
    simulators: Ensemble = nothing  # the method does not look at them
    taught = train(log, simulators, Plan(form="lts", candidates="all", effort=effort), seed)
    shares = {how: earned(taught, log, users, seed, greedy=how == "greedy") / best for how in ("served", "greedy")}
    return shares | {"cpu_s": time.process_time() - started}


def found_in(given: argparse.Namespace, name: str, seed: int) -> dict[str, float]:
    """Return what `tried` found, in this run or an earlier one."""
    return kept(given.out, f"{name}-{seed}-{given.effort:g}", lambda: tried(name, seed, given.effort))


def main() -> None:
    """Run all of it, print a table, then one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", default="1,2,3")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--effort", type=float, default=1.0)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    seeds, result = [int(seed) for seed in given.seeds.split(",")], {}
    home = {seed: found_in(given, "home", seed) for seed in seeds}
    print(
        f"{'task':<6}{'seed':>5}{'served':>9}{'there':>9}{'ratio':>8}{'greedy':>9}{'there':>9}{'ratio':>8}", flush=True
    )
    for name in given.tasks.split(","):
        found = {seed: found_in(given, name, seed) for seed in seeds}
        result[name] = {}
        for how in ("served", "greedy"):
            result[name][how] = float(np.mean([found[seed][how] / home[seed][how] for seed in seeds]))
        for seed in seeds:
            cells = [
                cell
                for how in ("served", "greedy")
                for cell in (found[seed][how], home[seed][how], found[seed][how] / home[seed][how])
            ]
            widths = (9, 9, 8, 9, 9, 8)
            print(
                f"{name:<6}{seed:>5}" + "".join(f"{c:>{w}.3f}" for c, w in zip(cells, widths, strict=True)), flush=True
            )
    print(json.dumps({"name": "groups", "seeds": seeds, "ratios_to_there": result}))


if __name__ == "__main__":
    main()
