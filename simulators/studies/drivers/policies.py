"""Policies of the driver programme: what they see, how they learn in learned simulators, and months under them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from decision.batch import Floats
from simulators.environments.driver_programme import COST, DAYS, DELAY, VALUE, DriverProgrammeEnv, Drivers
from simulators.environments.lts.env import Singles
from simulators.sim2rec.network import ContextPolicy
from simulators.sim2rec.sadae import Sadae, fit
from simulators.sim2rec.valued import Round
from simulators.studies.drivers.models import (
    EXECUTED,
    TASKS,
    Counts,
    DriverModel,
    LearnedModel,
    Month,
    TrueModel,
    expected_day,
    held_values,
    paid_for,
    settled,
)

FIRST = 7
"""Days of a month under the logging policy before a policy is judged."""


@dataclass(frozen=True, slots=True, eq=False)
class Cities:
    """Learned simulators, and the logs they were learned from.

    Attributes:
        models: two forms per city, city by city.
        logs: the log of each model's city.
        sadae: embeds a city's (orders, size of its drivers; task) of one day; None leaves the city out.
    """

    models: list[DriverModel]
    logs: list[Month]
    sadae: Sadae | None = None

    @property
    def rivals(self) -> Counts:
        """[m] the other form of each model's city."""
        return np.arange(len(self.models)) ^ 1

    @property
    def width(self) -> int:
        """Numbers per driver and day that a policy sees."""
        return 15 + (0 if self.sadae is None else self.sadae.latent)


def learned(log: Month, seed: int, features: int) -> list[DriverModel]:
    """Return the two forms of a city's simulator, each fitted to drivers drawn again; `features` is the net's."""
    rng, n = np.random.default_rng(seed), len(log.tasks)
    return [LearnedModel(log.take(rng.integers(0, n, n)), seed, net=net) for net in (0, features)]


def cities_of(models: Sequence[list[DriverModel]], logs: Sequence[Month], seed: int) -> Cities:
    """Return a set of simulators, with an autoencoder trained on days of their logs."""
    sadae = Sadae(np.zeros(4, np.float32), np.array([0.3, 0.3, 0.3, 0.5], np.float32), actions=2, latent=3, seed=seed)

    def draw(rng: np.random.Generator) -> Singles:
        sets = []
        for log in logs:
            rows, day = rng.integers(0, len(log.tasks), 48), int(rng.integers(0, DAYS))
            sets.append(_elements(log.take(rows), day))
        return np.stack(sets * (8 // len(logs))).astype(np.float32)

    fit(sadae, draw, seed, steps=200, penalty=1e-2)
    return Cities([one for two in models for one in two], [log for log in logs for _ in range(2)], sadae)


def trend_of(model: DriverModel, log: Month, *, after: int = 14) -> float:
    """Return the share of logged drivers whose orders do not fall as the bonus rises, after so many days."""
    return float(rising(model, memory_after(model, log, after), after).mean())


def rising(model: DriverModel, memory: Floats, day: int) -> NDArray[np.bool_]:
    """Return [n] whether orders do not fall as the bonus rises over what was executed, the intervention test."""
    executed = sorted({float(bonus) for bonus in TASKS[list(EXECUTED), 1]})
    found = [model.mean(memory, day, np.tile([1.0, bonus], (len(memory), 1))) for bonus in executed]
    return np.all(np.diff(found, axis=0) >= -1e-9, axis=0)


def memory_after(model: DriverModel, log: Month, days: int) -> Floats:
    """Return what `model` remembers of the logged drivers after so many days."""
    memory, left = model.start(log.drivers), log.drivers.budget.copy()
    for day in range(days):
        task = paid_for(TASKS[log.tasks[:, day]], left)
        memory = model.advance(memory, task, log.orders[:, day] / log.drivers.base)
        left = left - log.spend[:, day]
    return memory


def inputs_of(cities: Cities, drivers: Drivers, month: Month, left: Floats, day: int, group: Counts) -> Singles:
    """Return [n, width] what a policy sees on `day` of a month that is known up to then, orders two days late."""
    base, n = drivers.base, len(left)
    seen = np.zeros((n, 7))
    last = day - DELAY  # first day whose orders the log does not have
    if last > 0:
        some = month.orders[:, max(0, last - 7) : last] / base[:, None] - 1.0
        seen[:, 7 - some.shape[1] :] = some
    then = TASKS[month.tasks[:, last - 1]] if last > 0 else np.zeros((n, 2))
    yesterday = TASKS[month.tasks[:, day - 1]] if day > 0 else np.zeros((n, 2))
    angle = 2.0 * np.pi * (day % 7) / 7.0
    told = np.tile([np.cos(angle), np.sin(angle)], (n, 1))
    size = np.stack([left / drivers.budget, np.log(base / 15.0)], axis=1)
    parts = [2.0 * seen, then, yesterday, told, size]
    if cities.sadae is not None:
        code = np.zeros((n, cities.sadae.latent))
        if last > 0:
            code = cities.sadae.embed(_elements(month, last - 1), group)
        parts.append(code)
    return np.concatenate(parts, axis=1).astype(np.float32)


def _elements(month: Month, day: int) -> Singles:
    base, task = month.drivers.base, TASKS[month.tasks[:, day]]
    parts = [month.orders[:, day] / base - 1.0, np.log(base / 15.0), task[:, 0] - 1.0, task[:, 1] - 0.5]
    return np.stack(parts, axis=1).astype(np.float32)


def rolled(
    cities: Cities,
    kept: Sequence[bool],
    policy: ContextPolicy,
    offered: tuple[int, ...],
    users: int,
    rng: np.random.Generator,
    *,
    penalty: float,
    filtered: bool,
    every: int = 3,
) -> Round:
    """Follow the log for some days, then the student in every simulator kept; value its days, every third.

    With `filtered`, drivers whose orders would fall as the bonus rises are not learned from.
    """
    numbers = [number for number, ok in enumerate(kept) if ok] or list(range(len(kept)))
    own = np.repeat(numbers, users)
    months = [cities.logs[number].take(rng.integers(0, len(cities.logs[number].tasks), users)) for number in numbers]
    month = _joined(months)
    before, n, drivers = int(rng.integers(0, DAYS - 7)), len(own), month.drivers
    inputs = np.zeros((n, DAYS, cities.width), np.float32)
    values, weight = np.zeros((n, DAYS, len(offered)), np.float32), np.zeros((n, DAYS), np.float32)
    memory, left, state, group = cities.models[0].start(drivers), drivers.budget.copy(), policy.start(n), own // 2
    group = np.unique(group, return_inverse=True)[1]
    right = np.ones(n, np.bool_)
    for day in range(DAYS):
        inputs[:, day] = inputs_of(cities, drivers, month, left, day, group)
        with torch.no_grad():
            logits, state = policy.step(torch.from_numpy(inputs[:, day]), state)
        if day >= before:
            if filtered and day == before:
                for number in numbers:
                    right[own == number] = rising(cities.models[number], memory[own == number], day)
            if (day - before) % every == 0:
                memories = [memory] * len(cities.models)
                values[:, day] = held_values(
                    cities.models, own, drivers, memories, left, day, offered, penalty=penalty, rivals=cities.rivals
                )
                weight[:, day] = right
            noisy = logits.numpy() + rng.gumbel(size=logits.shape)
            month.tasks[:, day] = np.array(offered)[noisy.argmax(axis=1)]
            _simulate(cities.models, own, month, memory, left, day, rng)
        task = paid_for(TASKS[month.tasks[:, day]], left)
        memory = cities.models[0].advance(memory, task, month.orders[:, day] / drivers.base)
        left = left - month.spend[:, day]
    return inputs, values, weight


def _simulate(
    models: Sequence[DriverModel],
    own: Counts,
    month: Month,
    memory: Floats,
    left: Floats,
    day: int,
    rng: np.random.Generator,
) -> None:
    """Write what a day of `month` brings, under its tasks, in each driver's own model."""
    drivers = month.drivers
    task, mean = TASKS[month.tasks[:, day]], np.empty(len(own))
    paid = paid_for(task, left)
    for number in np.unique(own):
        mine = own == number
        mean[mine] = models[number].mean(memory[mine], day, paid[mine])
    orders = rng.poisson(mean * drivers.base).astype(np.float64)
    reached = np.where(orders >= task[:, 0] * drivers.base, orders, 0.0)
    # Given what was reached, the arithmetic of a day is that of one expected.
    spend = np.minimum(paid[:, 1] * reached, left)
    free, _ = expected_day(drivers, np.zeros(len(own)), task, orders / drivers.base)
    month.orders[:, day], month.spend[:, day] = orders, spend
    month.rewards[:, day] = free - _cost(spend, drivers)


def _cost(spend: Floats, drivers: Drivers) -> Floats:
    return COST * spend / (VALUE * drivers.base)


def in_model(policy: ContextPolicy, cities: Cities, number: int, offered: tuple[int, ...], seed: int) -> Month:
    """Return a month of the logged drivers of a simulator: a week as logged, then the policy's best tasks there."""
    log = cities.logs[number]
    month = log.take(np.arange(len(log.tasks)))
    model, rng, n, drivers = cities.models[number], np.random.default_rng(seed), len(log.tasks), log.drivers
    memory, left, state, own = model.start(drivers), drivers.budget.copy(), policy.start(n), np.zeros(n, np.int64)
    for day in range(DAYS):
        with torch.no_grad():
            seen = inputs_of(cities, drivers, month, left, day, own)
            logits, state = policy.step(torch.from_numpy(seen), state)
        if day >= FIRST:
            month.tasks[:, day] = np.array(offered)[logits.numpy().argmax(axis=1)]
            _simulate([model], own, month, memory, left, day, rng)
        task = paid_for(TASKS[month.tasks[:, day]], left)
        memory = model.advance(memory, task, month.orders[:, day] / drivers.base)
        left = left - month.spend[:, day]
    return month


def in_truth(
    policy: ContextPolicy, cities: Cities, offered: tuple[int, ...], first: Month, before: int, seed: int
) -> Month:
    """Return a month of the world's drivers: `before` days under the tasks of `first`, then the policy's best ones."""
    state = policy.start(len(first.tasks))
    group = np.zeros(len(first.tasks), np.int64)

    def choose(month: Month, env: DriverProgrammeEnv, day: int) -> Counts:
        nonlocal state
        with torch.no_grad():
            seen = inputs_of(cities, month.drivers, month, env.left, day, group)
            logits, state = policy.step(torch.from_numpy(seen), state)
        return month.tasks[:, day] if day < before else np.array(offered)[logits.numpy().argmax(axis=1)]

    return played(first, choose, seed)


def planned(first: Month) -> Month:
    """Return a month of a planner that knows drivers and city, and sets each day what is best until the end."""
    model = TrueModel()
    memory, n = model.start(first.drivers), len(first.tasks)

    def choose(month: Month, env: DriverProgrammeEnv, day: int) -> Counts:
        nonlocal memory
        memory[:, 0] = env.fatigue
        if day < FIRST:
            return month.tasks[:, day]
        own = np.zeros(n, np.int64)
        values = held_values([model], own, month.drivers, [memory], env.left, day, tuple(range(len(TASKS))))
        return values.argmax(axis=1)

    return played(first, choose, 0)


def constant(first: Month, bonus: float) -> Month:
    """Return a month of one task, in reach and with `bonus`, after the first days."""
    code = next(code for code in EXECUTED if TASKS[code, 0] == 1.0 and TASKS[code, 1] == bonus)
    return played(
        first, lambda month, env, day: month.tasks[:, day] if day < FIRST else np.full(len(month.tasks), code), 0
    )


def played(first: Month, choose: Callable[[Month, DriverProgrammeEnv, int], Counts], seed: int) -> Month:
    """Return a month of the world's drivers under the tasks chosen each day."""
    month, env = first.take(np.arange(len(first.tasks))), DriverProgrammeEnv(first.drivers)
    env.reset(seed=seed)
    for day in range(DAYS):
        month.tasks[:, day] = choose(month, env, day)
        month.orders[:, day], month.rewards[:, day], month.spend[:, day] = settled(env, TASKS[month.tasks[:, day]])
    return month


def _joined(months: Sequence[Month]) -> Month:
    names = ("base", "elasticity", "low", "high", "budget")
    together = {name: np.concatenate([getattr(month.drivers, name) for month in months]) for name in names}
    parts = (
        np.concatenate([getattr(month, name) for month in months]) for name in ("tasks", "orders", "rewards", "spend")
    )
    return Month(replace(months[0].drivers, **together), *parts)
