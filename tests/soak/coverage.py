"""How often the interval that a replay puts first holds the truth at 95%: clicks, revenue, heavy weights, payments.

``make soak NAME=coverage``, with ``ARGS="--logs N --seed S --size F"`` for others; F multiplies the rows of each log.
``--world NAME`` does one world alone, ``--world none`` the payments alone.
The share is counted over the logs that the replay answered; ``answered`` says how many these were.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import Counter
from typing import Any, NamedTuple

import numpy as np

from decision.batch import Floats
from decision.ope.arrays import evaluate
from tests.bench.coverage import payments

LEVEL = 0.95


class World(NamedTuple):
    """A log without features: its generations of loggers, the policy under test, and what actions pay.

    Attributes:
        rows: decisions.
        generations: [g, K] policies that drew the log, one after the other.
        policy: [K] policy under test.
        rate: [K] share of decisions that pay at all.
        sigma: spread of the logarithm of what they pay; 0 for 1.
    """

    rows: int
    generations: list[list[float]]
    policy: list[float]
    rate: list[float]
    sigma: float = 0.0

    @property
    def value(self) -> float:
        return float(np.array(self.policy) @ np.array(self.rate)) * math.exp(self.sigma**2 / 2.0)


_LIGHT, _TARGET = [[0.45, 0.33, 0.22]], [0.17, 0.33, 0.5]
_LEARNING = [[0.2] * 5, [0.5, 0.2, 0.1, 0.1, 0.1], [0.1, 0.6, 0.1, 0.1, 0.1]]
_REVENUE = [0.05, 0.35, 0.5, 0.05, 0.05], [0.02, 0.03, 0.035, 0.03, 0.03]
WORLDS = {
    "clicks, 3 a log": World(1_000, _LIGHT, _TARGET, [0.002, 0.003, 0.004]),
    "clicks, 15 a log": World(3_000, _LIGHT, _TARGET, [0.004, 0.005, 0.006]),
    "clicks, 100 a log": World(20_000, _LIGHT, _TARGET, [0.004, 0.005, 0.006]),
    "revenue": World(6_000, _LEARNING, *_REVENUE, 0.8),
    "revenue, long tail": World(6_000, _LEARNING, *_REVENUE, 1.3),
    "revenue, far from the log": World(6_000, _LEARNING, [0.02, 0.05, 0.83, 0.05, 0.05], _REVENUE[1], 1.0),
    "heavy weights": World(4_000, [[0.9, 0.08, 0.02]], [0.02, 0.03, 0.95], [0.2, 0.4, 0.6]),
    "heavy weights, few rewards": World(4_000, [[0.9, 0.08, 0.02]], [0.1, 0.3, 0.6], [0.02, 0.04, 0.06]),
}


def drawn(rng: np.random.Generator, world: World, n: int) -> tuple[Any, Floats, Floats, Floats]:
    """Return actions, propensities, rewards and [n, K] logging distributions."""
    number = np.arange(n) * len(world.generations) // n
    logging = np.array(world.generations)[number]
    action = (rng.random(n)[:, None] > logging.cumsum(1)).sum(1).clip(0, logging.shape[1] - 1)
    paid = np.exp(world.sigma * rng.standard_normal(n))
    reward = np.where(rng.random(n) < np.array(world.rate)[action], paid, 0.0)
    return action, logging[np.arange(n), action], reward, logging


def simulated(world: World, logs: int, seed: int, size: float = 1.0) -> dict[str, Any]:
    """Return how often the first interval of `logs` logs holds, and which one it was."""
    rng = np.random.default_rng([seed, world.rows])
    n, held, first, widths = round(world.rows * size), 0, Counter[str](), list[float]()
    for number in range(logs):
        action, propensity, reward, logging = drawn(rng, world, n)
        policy = np.tile(np.array(world.policy), (n, 1))
        found = evaluate(
            action=action, propensity=propensity, reward=reward, policy=policy, logging=logging, seed=number
        )
        if found.recommended is None:
            continue
        estimate = found.estimates[found.recommended]
        assert estimate is not None
        first[found.recommended] += 1
        held += estimate.low <= world.value <= estimate.high
        widths.append(estimate.high - estimate.low)
    answered = len(widths)
    return {
        "coverage": round(held / answered, 4) if answered else None,
        "answered": round(answered / logs, 4),
        "width": round(float(np.median(widths)) / world.value, 3) if answered else None,
        "first": dict(first),
    }


def main() -> None:
    """Print a row for each world, then one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--logs", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--size", type=float, default=1.0)
    parser.add_argument("--payments", type=int, default=400, help="logs of payments; 0 for none")
    parser.add_argument("--models", nargs="*", default=["vw"], help="learned reward models on payments")
    parser.add_argument("--world", choices=[*WORLDS, "none"], default=None)
    options = parser.parse_args()
    detail: dict[str, Any] = {}
    for name, world in WORLDS.items():
        if options.world not in (None, name):
            continue
        detail[name] = simulated(world, options.logs, options.seed, options.size)
        print(f"{name:<28} {detail[name]}", flush=True)
    if options.payments:
        of_payments = payments(options.payments, round(8_000 * options.size), options.seed, tuple(options.models))
        for name, rows in of_payments.items():
            if "dr" in rows:
                detail[name] = rows["dr"]
                print(f"{name:<45} {rows['dr']}", flush=True)
    print(json.dumps({"name": "coverage", "detail": detail}))


if __name__ == "__main__":
    main()
