"""The guard on clicks: how soon a better candidate has all the weight it can get, and how often the promise is broken.

``make soak NAME=guard``, with ``ARGS="--runs N --seed S --rate R"`` for others. Every run is a world of its own
(`simulators.environments.rollout`) whose rewards are clicks at the rate; the guard looks after every 100 clicks, and
rewards come two looks late. Worse candidates run in twice as many worlds. The promise is broken where a weight was
served, at any time, whose true value is below it.

``explained`` is the share of the variance of the evidence, as it is counted, that the true mean rewards would take away
besides as a control variate, with the candidate at half of the weight: the most that any reward model can do.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import numpy as np

from decision.batch import Floats
from decision.guard.rules import GuardRules
from pipelines.guard.state import RARE
from simulators.environments.rollout import World, roll_out, world_with_lift
from simulators.studies.interval import median, of_share

LIFTS = {0.01: (-0.3, -0.1, -0.06, 0.1, 0.3), 0.1: (-0.3, -0.1, -0.06, 0.1, 0.3), 0.8: (-0.1, -0.06, 0.05, 0.1)}
"""By the baseline's rate."""
LOOK, LOOKS = 100, 150
"""Clicks between two looks, and looks."""


def world_of(rng: np.random.Generator, lift: float, rate: float) -> World:
    """Return a world in which the baseline gets `rate` clicks a decision; the lift has no unit."""
    if rate <= 0.5:
        world = world_with_lift(rng, lift)
        return world._replace(reward=world.reward * rate / world.value(world.baseline))
    world = world_with_lift(rng, -lift * rate / (1.0 - rate))  # of what misses
    return world._replace(reward=np.maximum(1.0 - world.reward * (1.0 - rate) / world.value(world.baseline), 0.0))


def explained(world: World, weight: float, rules: GuardRules) -> float:
    """Return the share of the evidence's variance that the true means take away as a control variate.

    Args:
        world: where the candidate is served.
        weight: at which it is served.
        rules: the guard's; the evidence is about its top.
    """
    served = (1.0 - weight) * world.baseline + weight * world.candidate
    ratio = (rules.top * world.candidate - (rules.top - rules.alpha) * world.baseline) / served
    cell = world.contexts[:, None] * served

    def variance(center: Floats) -> float:
        # of (r - center) * ratio and the mean of center * ratio over the actions
        direct = (served * ratio * center).sum(1)[:, None]
        clicked, missed = ((end - center) * ratio + direct for end in (1.0, 0.0))
        square = world.reward * clicked**2 + (1.0 - world.reward) * missed**2
        return float((cell * square).sum()) - float((cell * ratio * world.reward).sum()) ** 2

    counted = variance(np.full_like(world.reward, rules.center))
    return 1.0 - variance(world.reward) / counted


def simulated(rate: float, lift: float, runs: int, seed: int, center: float) -> dict[str, Any]:
    """Return what the guard did in `runs` worlds."""
    batch = round(LOOK / rate)
    rules, shares = GuardRules(batch=batch, center=center), list[float]()
    violated, full, better, killed = 0, list[int | None](), list[int | None](), list[int | None]()
    for number in range(runs):
        world = world_of(np.random.default_rng([seed, number, 1]), lift, rate)
        rng = np.random.default_rng([seed, number, 2])
        rolled = roll_out(world, rules, rng, decisions=LOOKS * batch)
        violated += rolled.violated
        full.append(rolled.full)
        better.append(rolled.better)
        killed.append(rolled.killed)
        shares.append(explained(world, 0.5, rules))
    found: dict[str, Any] = {"runs": runs, "violated": violated / runs, "violated_ci": of_share(violated, runs)}
    for name, times in (("full", full), ("better", better), ("killed", killed)):
        reached = sum(time is not None for time in times)
        found[name] = {"share": reached / runs, "decisions": (middle := median(times))}
        found[name]["clicks"] = None if middle is None else round(middle * rate)
    return found | {"explained": round(float(np.median(shares)), 4)}


def main() -> None:
    """Print a row for each rate and lift, then one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--rate", type=float, action="append", choices=list(LIFTS), help="only this; may be given again"
    )
    parser.add_argument("--lift", type=float, action="append", help="only this one; may be given again")
    parser.add_argument("--plain", action="store_true", help="evidence counts rewards from 0, however frequent")
    options = parser.parse_args()
    detail: dict[str, Any] = {}
    for rate in options.rate or LIFTS:
        center = rate if rate >= RARE and not options.plain else 0.0
        for lift in options.lift or LIFTS[rate]:
            runs = options.runs * (2 if lift < 0 else 1)
            detail[f"{rate:g} {lift:+g}"] = found = simulated(rate, lift, runs, options.seed, center)
            print(f"{rate:<6g} {lift:+.2f} {found}", flush=True)
    print(json.dumps({"name": "guard", "detail": detail}))


if __name__ == "__main__":
    main()
