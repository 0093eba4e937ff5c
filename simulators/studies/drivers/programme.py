"""The study of the driver programme: simulators learned in four cities, a student deployed unseen in the fifth.

The protocol is that of Sim2Rec's driver programme recommendation (Chen et al. 2023, section V): a simulator per city
and form of model learned from its log, rollouts that start in logged states, the disagreement of a city's simulators
as a penalty (prediction errors), the executed range of tasks and the test that orders do not fall as the bonus rises
(extrapolation errors), a log two days late, a week of A/B. Cities differ in how busy they are, in how much a bonus
moves and in how hard tasks tire. Values are rewards over the value of a driver's usual orders, 1 for a usual day.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy import stats

from decision.errors import FieldError
from decision.gate import Reference, judge
from decision.ope.estimate import Estimate
from simulators.environments.driver_programme import DAYS, draw_drivers
from simulators.sim2rec.network import ContextPolicy
from simulators.sim2rec.valued import Pace, Round, taught
from simulators.studies import interval
from simulators.studies.drivers.models import AGAIN, EXECUTED, TASKS, DriverModel, Month, logged_month, paid_for
from simulators.studies.drivers.policies import (
    FIRST,
    Cities,
    cities_of,
    constant,
    in_model,
    in_truth,
    inputs_of,
    learned,
    planned,
    played,
    rolled,
    trend_of,
)

CITIES = ((-1.0, 0.03), (-0.5, 0.08), (0.5, 0.04), (1.0, 0.07), (0.0, 0.05))
"""How busy and elastic a city is, and how hard tasks tire there; the last one is never trained on."""
WEEK = 7
"""Days of the A/B."""
PENALTY = 0.25
"""Weight of the distance between a city's two simulators; MAPLE's coefficient (Chen et al. 2021)."""
TREND = 0.8
"""Share of drivers for whom orders must not fall as the bonus rises, or their simulator is left out."""
STUDENTS = ("sim2rec", "without_penalty", "without_filters", "ensemble", "direct", "there")
STILL = ("logged", "no_bonus", "planner")
ALL = (*STUDENTS, *STILL)
PAPER = {
    "sim2rec": {"orders": 0.020, "orders_trained": 0.016, "cost": 0.009, "cost_trained": 0.045},
    "without_penalty": {"orders": 0.013, "orders_trained": 0.023, "cost": -0.080, "cost_trained": -0.040},
    "without_filters": {"orders": 0.081, "orders_trained": 0.082, "cost": -0.100, "cost_trained": -0.111},
    "week": {"sim2rec": 0.069},
}
"""What the authors report of their own drivers, against their logged policy; their data are not public."""


@dataclass(frozen=True, slots=True)
class Size:
    """How much is run.

    Attributes:
        logged: drivers in the log of each city.
        net: random features of every second simulator.
        users: drivers a round, in each simulator.
        iterations: of every student.
        deployed: drivers of the fifth city.
        methods: run.
    """

    logged: int = 300
    net: int = 60
    users: int = 10
    iterations: int = 20
    deployed: int = 800
    methods: tuple[str, ...] = ALL


QUICK = Size(120, 30, 6, 10, 300, ("sim2rec", "without_filters", "there", "logged", "planner"))


@dataclass(frozen=True, slots=True)
class Job:
    """All methods with one seed: they share logs, simulators and the drivers deployed to."""

    seed: int

    @property
    def name(self) -> str:
        """Unique among a study's jobs."""
        return f"driver-programme-{self.seed}"


def jobs(seeds: Sequence[int], size: Size) -> list[Job]:
    """Return what has to be run."""
    return [Job(seed) for seed in seeds]


def run_job(job: Job, size: Size) -> dict[str, Any]:
    """Return per method what its drivers earned, and what its simulators promised.

    Raises:
        FieldError: a method is unknown.
    """
    for method in size.methods:
        if method not in ALL:
            raise FieldError("methods", wanted=f"some of {', '.join(ALL)}", got=method)
    torch.set_num_threads(1)
    started, seed = time.perf_counter(), job.seed
    logs = [
        logged_month(
            draw_drivers(np.random.default_rng([seed, number]), size.logged, city=city, wear=wear), seed + 100 * number
        )
        for number, (city, wear) in enumerate(CITIES)
    ]
    models = [learned(log, 10 * seed + number, size.net) for number, log in enumerate(logs)]
    trained = cities_of(models[:-1], logs[:-1], seed)
    passed = [trend_of(model, log) >= TREND for model, log in zip(trained.models, trained.logs, strict=True)]
    fifth = cities_of(models[-1:], logs[-1:], seed)
    city, wear = CITIES[-1]
    drivers = draw_drivers(np.random.default_rng([seed, 99]), size.deployed, city=city, wear=wear)
    first = logged_month(drivers, 7 * seed + 5)
    limit = watch_limit(trained, seed)
    methods = {}
    for method in size.methods:
        if method in STUDENTS:
            methods[method] = _student(method, seed, size, trained, passed, fifth, first, limit)
        else:
            month = {
                "logged": lambda: first,
                "no_bonus": lambda: constant(first, 0.0),
                "planner": lambda: planned(first),
            }[method]()
            methods[method] = _told(month)
    return {"methods": methods, "passed": passed, "limit": limit, "seconds": time.perf_counter() - started}


def surprise(model: DriverModel, seen: Month, *, first: int = FIRST) -> float:
    """Return the mean squared error of orders after day `first` over their Poisson variance; 1 if `model` is right."""
    memory, left, base, total = model.start(seen.drivers), seen.drivers.budget.copy(), seen.drivers.base, 0.0
    days = seen.tasks.shape[1]
    for day in range(days):
        task = paid_for(TASKS[seen.tasks[:, day]], left)
        expected = base * model.mean(memory, day, task)
        if day >= first:
            total += float((np.square(seen.orders[:, day] - expected) / expected).mean())
        memory = model.advance(memory, task, seen.orders[:, day] / base)
        left = left - seen.spend[:, day]
    return total / (days - first)


def watch_limit(cities: Cities, seed: int, *, drivers: int = 100) -> float:
    """Return a tenth more than the best simulator's surprise, which 99 of 100 groups of logged drivers stay under."""
    rng, usual = np.random.default_rng(seed), []
    for log in cities.logs[::2]:
        for _ in range(5):
            group = log.take(rng.integers(0, len(log.tasks), drivers))
            usual.append(min(surprise(model, group) for model in cities.models))
    return 1.1 * float(np.quantile(usual, 0.99))


def _student(
    method: str,
    seed: int,
    size: Size,
    trained: Cities,
    passed: Sequence[bool],
    fifth: Cities,
    first: Month,
    limit: float,
) -> dict[str, Any]:
    filtered = method not in ("without_filters", "ensemble")
    chosen = fifth if method == "there" else trained
    if method == "direct":  # one city, the farthest, and nothing that tells cities apart
        chosen = Cities(trained.models[:2], trained.logs[:2])
    kept = [bool(ok) or not filtered for ok in passed] if chosen is trained else [True] * len(chosen.models)
    offered = EXECUTED if filtered else tuple(range(len(TASKS)))
    penalty = 0.0 if method in ("without_penalty", "ensemble") else PENALTY

    def roll(policy: ContextPolicy, rng: np.random.Generator) -> Round:
        return rolled(chosen, kept, policy, offered, size.users, rng, penalty=penalty, filtered=filtered)

    policy = taught(chosen.width, len(offered), roll, Pace(iterations=size.iterations), seed)
    believed = [in_model(policy, chosen, number, offered, seed) for number in range(len(chosen.models)) if kept[number]]
    judges = replace(fifth, sadae=chosen.sadae)
    held_out = [in_model(policy, judges, number, offered, seed) for number in range(len(judges.models))]
    month = in_truth(policy, chosen, offered, first, FIRST, seed)
    out = _told(month) | {
        "believed": float(np.mean([_late(one) for one in believed])),
        "held_out": float(np.mean([_late(one) for one in held_out])),
        "surprise": min(surprise(model, month) for model in trained.models),
        "gate": gated(policy, chosen, offered, fifth.logs[0]),
        "week": week(policy, chosen, offered, first, seed),
    }
    logs = [log for log, ok in zip(chosen.logs, kept, strict=True) if ok]
    for key in ("orders", "spend"):
        now, before = (np.mean([getattr(one, key)[:, FIRST:].mean() for one in some]) for some in (believed, logs))
        out[f"{key}_trained"] = float(now / before - 1.0)
    return out | {"alarmed": out["surprise"] > limit}


def gated(policy: ContextPolicy, cities: Cities, offered: tuple[int, ...], log: Month) -> dict[str, Any]:
    """Return what the promotion gate says from a log alone: importance weighting by the logging policy's propensities.

    ``weight`` is the mean weight: the share of the policy's decisions that the log knows anything about.
    """
    n = len(log.tasks)
    state, group = policy.start(n), np.zeros(n, np.int64)
    left, weights = log.drivers.budget.copy(), np.zeros(log.tasks.shape)
    known = {code: place for place, code in enumerate(offered)}
    for day in range(DAYS):
        with torch.no_grad():
            logits, state = policy.step(torch.from_numpy(inputs_of(cities, log.drivers, log, left, day, group)), state)
            likely = torch.softmax(logits.double(), dim=-1).numpy()
        shown = log.tasks[:, day]
        again = AGAIN * (shown == log.tasks[:, day - 1]) if day else 0.0
        drawn = (1.0 - AGAIN if day else 1.0) / len(EXECUTED)
        weights[:, day] = likely[np.arange(n), [known[int(code)] for code in shown]] / (drawn + again)
        left = left - log.spend[:, day]
    late = weights[:, FIRST:]
    gained = ((late - 1.0) * log.rewards[:, FIRST:]).mean(axis=1)
    ess = float(late.sum() ** 2 / np.square(late).sum())

    def lift(*, level: float = 0.95) -> Estimate:
        half = float(stats.t.ppf(0.5 + level / 2.0, n - 1) * gained.std(ddof=1) / np.sqrt(n))
        value = float(gained.mean())
        return Estimate(value, value - half, value + half, level, late.size, ess, ())

    verdict = judge([Reference("the logging policy", lift)], alpha=0.05, minimum_ess=100.0)
    return {"promote": verdict.promote, "weight": float(late.mean()), "lift": float(gained.mean())}


def week(policy: ContextPolicy, cities: Cities, offered: tuple[int, ...], first: Month, seed: int) -> dict[str, float]:
    """Return a simulated A/B: three weeks as logged, then half of the drivers under the policy for seven days.

    ``lift`` is the treated drivers' reward of that week over the others', each by his own three weeks before;
    ``half`` is half of its 95% interval.
    """
    month = in_truth(policy, cities, offered, first, DAYS - WEEK, seed + 1)
    control = played(first, lambda month, env, day: month.tasks[:, day], seed + 1)
    treated = np.random.default_rng(seed).permutation(len(first.tasks)) % 2 == 0
    reward = np.where(treated[:, None], month.rewards, control.rewards)
    change = reward[:, -WEEK:].mean(axis=1) - reward[:, :-WEEK].mean(axis=1)
    usual = reward[~treated][:, -WEEK:].mean()
    error = np.sqrt(change[treated].var() / treated.sum() + change[~treated].var() / (~treated).sum())
    lift = (change[treated].mean() - change[~treated].mean()) / usual
    return {"lift": float(lift), "half": float(1.96 * error / usual)}


def _late(month: Month) -> float:
    return float(month.rewards[:, FIRST:].mean())


def _told(month: Month) -> dict[str, Any]:
    return {
        "value": _late(month),
        "orders": float(month.orders[:, FIRST:].mean()),
        "spend": float(month.spend[:, FIRST:].mean()),
    }


def summary(size: Size, results: Mapping[str, Mapping[str, Any]], seeds: Sequence[int]) -> dict[str, Any]:
    """Return per method means over seeds with 95% intervals, paired by seed.

    ``ratio_there`` is the value over that of the same student trained in the fifth city; ``over_logged`` the gain in
    value; ``orders_change`` and ``cost_change`` are relative to the logging policy; ``belief`` is what the trained
    simulators promise over what the fifth city's own simulators say.
    """
    runs = [results[Job(seed).name]["methods"] for seed in seeds]
    out: dict[str, Any] = {}
    for method in size.methods:
        found = [run[method] for run in runs]
        columns = {"value": [one["value"] for one in found]}
        if "there" in size.methods:
            columns["ratio_there"] = [
                one["value"] / run["there"]["value"] for one, run in zip(found, runs, strict=True)
            ]
        if "logged" in size.methods:
            logged = [run["logged"] for run in runs]
            columns["over_logged"] = [one["value"] - log["value"] for one, log in zip(found, logged, strict=True)]
            for key, name in (("orders", "orders_change"), ("spend", "cost_change")):
                columns[name] = [one[key] / log[key] - 1.0 for one, log in zip(found, logged, strict=True)]
        if method in STUDENTS:
            columns |= {
                key: [one[key] for one in found] for key in ("believed", "held_out", "surprise", "orders_trained")
            }
            columns["cost_trained"] = [one["spend_trained"] for one in found]
            columns["belief"] = [one["believed"] / one["held_out"] for one in found]
            columns["belief_true"] = [one["believed"] / one["value"] for one in found]
            columns["week"] = [one["week"]["lift"] for one in found]
        row: dict[str, Any] = {}
        for key, values in columns.items():
            row[key], row[f"{key}_ci"] = float(np.mean(values)), interval.of_mean(values)
        if method in STUDENTS:
            row["alarmed"] = sum(one["alarmed"] for one in found)
            row["promoted"] = sum(one["gate"]["promote"] for one in found)
            row["known"] = float(np.mean([one["gate"]["weight"] for one in found]))
            row["weeks"] = [one["week"] for one in found]
        out[method] = row
    return out
