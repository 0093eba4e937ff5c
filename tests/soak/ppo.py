"""PPO in its published form on LTS3, for as long as one thread is given, until its learning curve is known.

Sim2Rec as its authors run it: recurrent nets, the raw code of the group's autoencoder, trained in the groups far from
mu 14 and deployed there unseen. Every 20 updates the mean level is tried on 1,000 users of mu 14, and the training is
written down; a run that was stopped goes on from there bit for bit. The curve is extended in two ways to the return
that the authors report after 2e9 user-steps: as a + b log steps, and as a gap to the optimum that falls as a power of
the steps; both are fitted to the second half of the points, on a logarithmic axis of steps.

``python -m tests.soak.ppo [UPDATES] [FOLDER] [SECONDS]``: 600 updates, a folder that is removed, and no limit to the
processor time of this call. UPDATES sets the pace of the learning rate: an interrupted run goes on with the same.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from simulators.environments.lts.env import draw_users
from simulators.environments.lts.planner import plan, returns_of_plan
from simulators.environments.lts.tasks import TARGET, task
from simulators.sim2rec import ppo, ppo_checkpoint
from simulators.sim2rec.ppo import PpoRecipe, Training
from simulators.sim2rec.views import SadaeEmbedding, View
from simulators.studies.sim2rec import EVALUATION_SEED, PAPER, trained_sadae

SEED, EVERY, USERS = 0, 20, 1000


def main() -> None:
    """Train, print the curve as it comes, and say where it leads."""
    updates = int(sys.argv[1]) if len(sys.argv) > 1 else 600
    seconds = float(sys.argv[3]) if len(sys.argv) > 3 else math.inf
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(sys.argv[2] if len(sys.argv) > 2 else temporary)
        folder.mkdir(parents=True, exist_ok=True)
        found = run(folder, updates, seconds)
    print(json.dumps(found))


def run(folder: Path, updates: int, seconds: float = math.inf, *, every: int = EVERY) -> dict[str, Any]:
    """Go on with the training in `folder` to `updates`, or until `seconds` of processor time; return its curve."""
    torch.set_num_threads(1)
    chosen, recipe = task("3"), PpoRecipe(updates=updates)
    view = View(embedding=SadaeEmbedding(trained_sadae(chosen, SEED, 500)[0], decoded=False))
    users = draw_users(np.random.default_rng(EVALUATION_SEED), np.array([TARGET]), USERS)
    kept, told = folder / "ppo.npz", folder / "ppo.json"
    curve: list[list[float]] = []
    training = ppo.begin(view, recipe, SEED)
    if kept.exists():
        training = ppo_checkpoint.restore(kept.read_bytes(), view, recipe)
        curve = [row for row in json.loads(told.read_text()) if row[0] <= training.actor.user_steps]
    spent, started = curve[-1][2] if curve else 0.0, time.process_time()
    print("user-steps  return at mu 14  processor seconds", flush=True)

    def watch(now: Training) -> None:
        if now.update % every and now.update < updates:
            return
        reached = float(ppo.returns_of_actor(now.actor, view, users, 1).mean())
        curve.append([now.actor.user_steps, reached, round(spent + time.process_time() - started, 1)])
        told.write_text(json.dumps(curve))
        part = kept.with_suffix(".part")
        part.write_bytes(ppo_checkpoint.save(now))
        part.replace(kept)
        print(f"{now.actor.user_steps:>10,}  {reached:>15.1f}  {curve[-1][2]:>17,.0f}", flush=True)

    while training.update < updates and time.process_time() - started < seconds:
        ppo.train(training, view, chosen.chocs, recipe, until=training.update + every, watch=watch)
    optimum = float(returns_of_plan(users, plan(users)).mean())
    target = PAPER["3"]["sim2rec"]
    steps, returns = (np.array([row[column] for row in curve]) for column in (0, 1))
    return {
        "name": "ppo",
        "user_steps": training.actor.user_steps,
        "processor_seconds": curve[-1][2] if curve else 0.0,
        "best": float(returns.max()) if curve else None,
        "last": float(returns[-1]) if curve else None,
        "optimum": optimum,
        "authors": target,
        **steps_to(target, steps, returns, optimum),
    }


def steps_to(target: float, steps: np.ndarray, returns: np.ndarray, optimum: float) -> dict[str, float | None]:
    """Return the steps at which `target` is met by the curve's two extensions; None where it leads nowhere.

    Args:
        target: a return below `optimum`.
        steps: [m] of the curve, ascending, above 0.
        returns: [m] at them.
        optimum: that nothing passes.
    """
    out: dict[str, float | None] = {"logarithm_meets_at": None, "power_meets_at": None}
    late = np.log(steps) >= (np.log(steps[0]) + np.log(steps[-1])) / 2.0 if len(steps) else np.zeros(0, np.bool_)
    if late.sum() < 3:
        return out
    x, y = np.log(steps[late]), returns[late]
    for name, values, wanted, rises in (
        ("logarithm_meets_at", y, target, 1.0),
        ("power_meets_at", np.log(np.maximum(optimum - y, 1e-9)), math.log(optimum - target), -1.0),
    ):
        slope, start = np.polyfit(x, values, 1)
        if slope * rises > 0.0 and (wanted - start) / slope < 60.0:
            out[name] = float(math.exp((wanted - start) / slope))
    return out


if __name__ == "__main__":
    main()
