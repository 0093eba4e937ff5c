"""How often each interval at 95% holds the truth: over simulated logs, over payments, and at the worst moment to stop.

``python -m tests.bench.coverage``, ``--quick`` or ``QUICK=1`` for less; ``--payments N`` logs of payments, 0 for none.
The last line is ``{"name", "ratios", "detail"}``; the ratios are coverage over 95%.
"""

from __future__ import annotations

import argparse
import json
import math
import os
from typing import Any

import numpy as np

from decision.batch import Batch, Floats, Interactions
from decision.exploration.mix import with_floor
from decision.exploration.squarecb import squarecb
from decision.ope.evaluation.family import Plan, Shard
from decision.ope.evaluation.results import Results, results
from decision.ope.evaluation.sums import evaluation_sums
from decision.ope.intervals.betting import Bets
from decision.ope.intervals.clopper_pearson import clopper_pearson
from decision.ope.intervals.empirical_bernstein import empirical_bernstein
from decision.ope.rows import Rows
from decision.ope.sums.means import Support
from decision.oracles.factory import new_oracle
from decision.oracles.kind import OracleSettings
from decision.protocols import Oracle
from pipelines.replay.crossfit import FOLDS, CrossFit, Learner
from simulators.environments.payments import PaymentsWorld, payments_world

LEVEL = 0.95
STRETCHES = 40
PAYMENT_MODELS: tuple[Learner, ...] = ("vw", "logistic")
# Logging policy, evaluation policy, mean rewards; the second world's largest weight is 47.5.
WORLDS = {
    "light weights": ([0.45, 0.33, 0.22], [0.17, 0.33, 0.5], [0.2, 0.4, 0.6]),
    "heavy weights": ([0.9, 0.08, 0.02], [0.02, 0.03, 0.95], [0.2, 0.4, 0.6]),
    "rare rewards": ([0.5, 0.3, 0.2], [0.1, 0.2, 0.7], [0.002, 0.004, 0.006]),
}


class Tally:
    """Misses and widths by interval."""

    def __init__(self) -> None:
        self.found: dict[str, list[tuple[bool, float, float]]] = {}

    def add(self, name: str, low: float, high: float, truth: float, value: float = math.nan) -> None:
        self.found.setdefault(name, []).append((low <= truth <= high, high - low, value - truth))

    def table(self) -> dict[str, dict[str, float]]:
        out: dict[str, dict[str, float]] = {}
        for name, rows in self.found.items():
            held, widths, errors = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
            out[name] = {
                "coverage": round(float(held.mean()), 4),
                "error": round(float(1.96 * math.sqrt(held.var() / len(held))), 4),
                "logs": len(rows),
            }
            if np.isfinite(widths).all():
                out[name]["width"] = round(float(np.median(widths)), 5)
            if np.isfinite(errors).all():
                out[name] |= {
                    "bias": round(float(errors.mean()), 5),
                    "rmse": round(float(np.sqrt((errors**2).mean())), 5),
                }
        return out


def drawn(rng: np.random.Generator, n: int, world: Any, batch: Batch) -> tuple[Interactions, Floats, Floats]:
    """Return a log, the evaluation policy and a reward model that is off by a tenth."""
    logging, target, means = (np.array(part) for part in world)
    k = len(means)
    pick = (rng.random(n)[:, None] > logging.cumsum()[None, :]).sum(1).clip(0, k - 1)
    reward = (rng.random(n) < means[pick]).astype(np.float64)
    log = Interactions(batch, np.arange(n) * k + pick, logging[pick], reward, np.tile(logging, n))
    return log, np.tile(target, n), np.tile(means * 0.9, n)


def simulated(name: str, logs: int, n: int, seed: int) -> dict[str, dict[str, float]]:
    """Return coverage over simulated logs of n rows."""
    rng, tally = np.random.default_rng(seed), Tally()
    world = WORLDS[name]
    logging, target, means = (np.array(part) for part in world)
    truth, largest = float(target @ means), float((target / logging).max())
    lift = truth - float(logging @ means)
    batch = Batch([{}] * n, [{}] * (3 * n), ["a"] * (3 * n), np.arange(n + 1) * 3)
    plan = Plan(low=0.0, high=1.0, bootstrap=512, buckets=STRETCHES)
    for number in range(logs):
        log, pmf, expected = drawn(rng, n, world, batch)
        rows = Rows.of(log, pmf, expected)
        shard = Shard(
            rows=rows, group=rng.integers(512, size=n), bucket=np.arange(n) * STRETCHES // n, sequence=expected
        )
        sums = evaluation_sums(shard, plan)
        found = results(sums, plan, count=400, seed=number)
        for key, estimate in found.estimates.items():
            if estimate is not None:
                tally.add(key, estimate.low, estimate.high, truth, estimate.value)
        for tau in (10.0, 20.0):
            estimate = found.by_parameter["switch_dr"][tau]
            tally.add(f"switch_dr, tau {tau:g}", estimate.low, estimate.high, truth, estimate.value)
        for key in ("ips", "snips", "dr"):
            tally.add(f"{key}, bootstrap", *found.bootstrap[key], truth)
        plain = sums.mean("ips")
        bounded = empirical_bernstein(plain, low=0.0, high=largest)
        tally.add("ips, empirical Bernstein", bounded.low, bounded.high, truth)
        exact = clopper_pearson(plain, largest=largest)
        tally.add("ips, Clopper-Pearson", exact.low, exact.high, truth)
        _sequences(tally, found, truth, lift)
        if number < logs // 5:
            _bet(tally, rows, truth)
    return tally.table()


def _sequences(tally: Tally, found: Results, truth: float, lift: float) -> None:
    # Stopped where the interval is furthest off: the worst that peeking can do.
    for name, wanted in (("value", truth), ("lift", lift)):
        ends: list[tuple[float, float]] = [getattr(moment, name) for moment in found.moments]
        low, high = ends[-1]
        tally.add(f"sequence of the {name}, at the end", low, high, wanted)
        low, high = max(ends, key=lambda end: max(end[0] - wanted, wanted - end[1]))
        tally.add(f"sequence of the {name}, worst moment", low, high, wanted)


def _bet(tally: Tally, rows: Rows, truth: float) -> None:
    grid = np.linspace(0.004, 0.996, 125)
    step, ends = max(len(rows) // 20, 1), []
    wins = rows.weight * rows.reward
    low: Bets | None = None
    for start in range(0, len(rows), step):
        part = Bets.of(wins[start : start + step], below=0.0, grid=grid)
        low = part if low is None else low + part
        ends.append(low.lower_bound(0.05))
    tally.add("betting, lower bound at the worst moment", max(ends), math.inf, truth)


def payments(
    logs: int, n: int, seed: int, kinds: tuple[Learner, ...] = PAYMENT_MODELS
) -> dict[str, dict[str, dict[str, float]]]:
    """Return coverage on payments logged by SquareCB (gamma 1000, 5% uniform), by policy under test and reward model.

    Generation 0 is uniform; its model draws every log. One policy under test learned from generation 1 alone, which
    takes it far from the log; the other from both, as versions of a loop do. Reward models are the true means, and
    those of these `kinds`, cross-fitted.
    """
    rng = np.random.default_rng(seed)
    world = payments_world(seed=seed)
    first = world.draw(n, rng)
    uniform = _played(world, first, _offered(first.offsets), rng)
    early = _trained(uniform)
    second = world.draw(n, rng)
    shifted = _played(world, second, _policy(early, world.batch(second)), rng)
    large = world.draw(60_000, rng)
    wide = world.batch(large)
    out: dict[str, dict[str, dict[str, float]]] = {}
    for name, late in {"last generation": _trained(shifted), "all generations": _trained(uniform, shifted)}.items():
        truth = _value(world, large, _policy(late, wide))
        lift = truth - _value(world, large, _policy(early, wide))
        tallies: dict[str, Tally] = {}
        shares: list[float] = []
        largest = 0.0
        for number in range(logs):
            drawn_now = world.draw(n, rng)
            batch = world.batch(drawn_now)
            target = _policy(late, batch)
            log = _played(world, drawn_now, _policy(early, batch), rng, batch)
            fold = rng.integers(FOLDS, size=n)
            expected: dict[str, Floats] = {"true means": world.approval(drawn_now)[drawn_now.available]}
            for kind in kinds:
                models = CrossFit(kind, log, fold).models()
                expected[kind] = models.predict(batch, fold, models.load())
            group, bucket = rng.integers(512, size=n), np.arange(n) * STRETCHES // n
            plan = Plan(low=0.0, high=1.0, bootstrap=512, buckets=STRETCHES)
            for kind, means in expected.items():
                # The sequence's model may know nothing of the rows it is used on: that of the generation before.
                rows = Rows.of(log, target, means)
                shard = Shard(rows=rows, group=group, bucket=bucket, sequence=early.predict(batch))
                sums = evaluation_sums(shard, plan)
                found = results(sums, plan, count=400, seed=number)
                _payments_tally(tallies.setdefault(kind, Tally()), found, truth, lift)
            weights = target[log.chosen] / log.propensity
            shares.append(Support.of(weights).ess / n)
            largest = max(largest, float(weights.max()))
        for kind, tally in tallies.items():
            out[f"payments, {name}, {kind}"] = tally.table()
        out[f"payments, {name}, weights"] = {
            "effective share": {"mean": round(float(np.mean(shares)), 4)},
            "largest weight": {"most": round(largest, 1)},
        }
    return out


def _payments_tally(tally: Tally, found: Results, truth: float, lift: float) -> None:
    for key, estimate in found.estimates.items():
        if estimate is not None:
            tally.add(key, estimate.low, estimate.high, truth, estimate.value)
    for tau in (10.0, 20.0, 50.0):
        estimate = found.by_parameter["switch_dr"][tau]
        tally.add(f"switch_dr, tau {tau:g}", estimate.low, estimate.high, truth, estimate.value)
    for key in ("dr", "switch_dr"):
        tally.add(f"{key}, bootstrap", *found.bootstrap[key], truth)
    _sequences(tally, found, truth, lift)


def _offered(offsets: Any) -> Floats:
    sizes = np.diff(offsets)
    return np.repeat(1.0 / sizes, sizes)


def _trained(*logs: Interactions) -> Oracle:
    # The oracle that a loop has when nothing is said; one fit after the other, as a loop that learns on.
    oracle = new_oracle(OracleSettings())
    for log in logs:
        oracle.fit(log)
    return oracle


def _policy(oracle: Oracle, batch: Batch, gamma: float = 1000.0) -> Floats:
    return with_floor(squarecb(oracle.predict(batch), batch.offsets, gamma=gamma), batch.offsets, 0.05)


def _value(world: PaymentsWorld, drawn_now: Any, pmf: Floats) -> float:
    return float((pmf * world.approval(drawn_now)[drawn_now.available]).sum() / len(drawn_now))


def _played(
    world: PaymentsWorld, drawn_now: Any, pmf: Floats, rng: np.random.Generator, batch: Batch | None = None
) -> Interactions:
    batch = world.batch(drawn_now) if batch is None else batch
    running = np.cumsum(pmf)
    start = running[batch.offsets[:-1]] - pmf[batch.offsets[:-1]]
    at = np.searchsorted(running, start + rng.random(len(batch)) * 0.999999999)
    chosen = np.clip(at, batch.offsets[:-1], batch.offsets[1:] - 1)
    mean = world.approval(drawn_now)[drawn_now.available][chosen]
    reward = (rng.random(len(batch)) < mean).astype(np.float64)
    return Interactions(batch, chosen.astype(np.int64), pmf[chosen], reward, pmf)


def main() -> None:
    """Run the simulation and print its line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--world", action="append", choices=list(WORLDS), help="simulate this one; may be repeated")
    parser.add_argument("--logs", type=int)
    parser.add_argument("--rows", type=int, default=1_000)
    parser.add_argument("--payments", type=int)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    quick = options.quick or os.environ.get("QUICK") == "1"
    logs = options.logs or (20 if quick else 1_000)
    detail: dict[str, Any] = {}
    for name in WORLDS if options.world is None else options.world:
        detail[name] = simulated(name, logs, options.rows, options.seed)
        for key, row in detail[name].items():
            print(f"{name:<15} {key:<42} {row}", flush=True)
    count = options.payments if options.payments is not None else (2 if quick else 100)
    if count:
        for name, rows in payments(count, 8_000, options.seed).items():
            detail[name] = rows
            for key, row in rows.items():
                print(f"{name:<45} {key:<42} {row}", flush=True)
    ratios = {
        f"{name}: {key}": round(row["coverage"] / LEVEL, 4)
        for name, rows in detail.items()
        for key, row in rows.items()
        if "coverage" in row
    }
    print(json.dumps({"name": "coverage", "ratios": ratios, "detail": detail}))


if __name__ == "__main__":
    main()
