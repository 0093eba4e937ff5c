"""Simulators of drivers learned from a city's log, and what a task is worth in one: orders are learned, money is known.

Sim2Rec's driver simulators (Chen et al. 2023) predict the orders that a driver finishes under a task; what they pay
and cost is arithmetic (`simulators.environments.driver_programme`). A threshold is given as a multiple of a driver's
usual orders, which his bounds tell.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import pdtrc

from decision.batch import Floats
from simulators.environments.driver_programme import (
    COST,
    DAYS,
    RESTING,
    VALUE,
    WEEK,
    DriverProgrammeEnv,
    Drivers,
    levels_of,
)

Counts = NDArray[np.int64]

THRESHOLDS = (0.6, 0.8, 1.0, 1.2, 1.4, 1.6)
BONUSES = (0.0, 0.5, 1.0, 2.0, 3.0, 4.0)
TASKS = np.array([(threshold, bonus) for threshold in THRESHOLDS for bonus in BONUSES])
"""[A, 2] threshold by usual orders, bonus per order."""
EXECUTED = tuple(code for code, (threshold, bonus) in enumerate(TASKS) if 0.8 <= threshold <= 1.2 and bonus <= 1.0)
"""Codes of the tasks that the logging policy sets."""
AGAIN = 0.5
"""Probability with which it repeats yesterday's task."""
_DECAY = 0.7
_LEAST, _MOST = 0.05, 3.0


@dataclass(frozen=True, slots=True, eq=False)
class Month:
    """What was done with a city's drivers.

    Attributes:
        drivers: n of them.
        tasks: [n, T] codes into `TASKS`.
        orders: [n, T].
        rewards: [n, T] over the value of usual orders.
        spend: [n, T] bonus money.
    """

    drivers: Drivers
    tasks: Counts
    orders: Floats
    rewards: Floats
    spend: Floats

    def take(self, rows: Counts) -> Month:
        """Return the drivers at `rows`; the same may come twice."""
        parts = [part[rows] for part in (self.orders, self.rewards, self.spend)]
        return Month(drivers_at(self.drivers, rows), self.tasks[rows], *parts)


class DriverModel(Protocol):
    """How drivers answer tasks; orders are by their usual ones."""

    def start(self, drivers: Drivers) -> Floats:
        """Return memories [n, w] at the start of a month."""
        ...

    def mean(self, memory: Floats, day: int, task: Floats) -> Floats:
        """Return [n] orders expected under tasks [n, 2]; without money left the task's bonus is 0."""
        ...

    def advance(self, memory: Floats, task: Floats, orders: Floats) -> Floats:
        """Return memories [n, w] after a day's tasks [n, 2] and orders [n]."""
        ...


def drivers_at(drivers: Drivers, rows: Counts) -> Drivers:
    """Return the drivers at `rows`."""
    names = ("base", "elasticity", "low", "high", "budget")
    return replace(drivers, **{name: getattr(drivers, name)[rows] for name in names})


def logged_month(drivers: Drivers, seed: int, *, days: int = DAYS) -> Month:
    """Return a month under the logging policy: tasks of a narrow range, half of them yesterday's again."""
    rng, n = np.random.default_rng(seed), len(drivers.base)
    tasks = np.array(EXECUTED)[rng.integers(0, len(EXECUTED), (n, days))]
    again = rng.random((n, days)) < AGAIN
    for day in range(1, days):
        tasks[:, day] = np.where(again[:, day], tasks[:, day - 1], tasks[:, day])
    env = DriverProgrammeEnv(drivers, days=days)
    env.reset(seed=seed)
    found = [settled(env, TASKS[tasks[:, day]]) for day in range(days)]
    return Month(drivers, tasks, *(np.stack(part, axis=1) for part in zip(*found, strict=True)))


def settled(env: DriverProgrammeEnv, task: Floats) -> tuple[Floats, Floats, Floats]:
    """Set tasks [n, 2] for a day; return [n] orders, rewards over the value of usual orders, and money spent."""
    base = env.drivers.base
    _, reward, _, _, told = env.step(levels_of(task[:, 0] * base, task[:, 1]))
    return told["orders"], reward / (VALUE * base), told["spend"]


class TrueModel:
    """The world itself: its memory is fatigue, beside the driver's elasticity and his city's wear."""

    def start(self, drivers: Drivers) -> Floats:
        """See `DriverModel`."""
        n = len(drivers.base)
        return np.stack([np.zeros(n), drivers.elasticity, np.full(n, drivers.wear)], axis=1)

    def mean(self, memory: Floats, day: int, task: Floats) -> Floats:
        """See `DriverModel`."""
        reach = np.exp(-np.square((task[:, 0] - 1.0) / 0.5))
        lift = memory[:, 1] * np.log1p(task[:, 1]) * reach - memory[:, 0]
        return WEEK[day % 7] * np.maximum(1.0 + lift, _LEAST)

    def advance(self, memory: Floats, task: Floats, orders: Floats) -> Floats:
        """See `DriverModel`."""
        after = memory.copy()
        after[:, 0] = RESTING * memory[:, 0] + memory[:, 2] * np.maximum(task[:, 0] - 1.0, 0.0)
        return after


class LearnedModel:
    """Ridge regression of orders on the task and on what a driver did before; a net adds random features.

    The memory holds moving averages of thresholds and of their excess, and the sums that a driver's own level and his
    own response to a bonus are estimated from.
    """

    def __init__(self, log: Month, seed: int, *, net: int = 0) -> None:
        """Fit to `log`; `net` random features are added to the linear terms."""
        rng = np.random.default_rng(seed)
        base, inputs, targets = log.drivers.base, [], []
        self._bend, self._shift = rng.normal(0.0, 0.7, (6, net)), rng.uniform(-1.5, 1.5, net)
        memory, left = self.start(log.drivers), log.drivers.budget.copy()
        for day in range(log.tasks.shape[1]):
            task, orders = paid_for(TASKS[log.tasks[:, day]], left), log.orders[:, day] / base
            inputs.append(self._inputs(memory, day, task))
            targets.append(orders)
            left -= log.spend[:, day]
            memory = self.advance(memory, task, orders)
        x, y = np.concatenate(inputs), np.concatenate(targets)
        weight = np.tile(base, len(targets))[:, None]  # the noise of a driver's orders falls with their number
        gram = x.T @ (weight * x) + 1e-3 * weight.sum() * np.diag(self._inputs_penalty(x.shape[1]))
        self._readout = np.linalg.solve(gram, x.T @ (weight[:, 0] * y))

    def start(self, drivers: Drivers) -> Floats:
        """See `DriverModel`."""
        memory = np.zeros((len(drivers.base), 7))
        memory[:, 0] = 1.0
        return memory

    def mean(self, memory: Floats, day: int, task: Floats) -> Floats:
        """See `DriverModel`."""
        return np.clip(self._inputs(memory, day, task) @ self._readout, _LEAST, _MOST)

    def advance(self, memory: Floats, task: Floats, orders: Floats) -> Floats:
        """See `DriverModel`."""
        threshold, bonus = task.T
        after = memory + np.stack(
            [np.zeros(len(orders))] * 2 + [np.ones(len(orders)), orders, bonus, bonus**2, bonus * orders], axis=1
        )
        after[:, 0] = _DECAY * memory[:, 0] + (1.0 - _DECAY) * threshold
        after[:, 1] = _DECAY * memory[:, 1] + (1.0 - _DECAY) * np.maximum(threshold - 1.0, 0.0)
        return after

    def _inputs(self, memory: Floats, day: int, task: Floats) -> Floats:
        threshold, bonus = task.T
        usual, tired, n, sum_y, sum_b, sum_bb, sum_by = memory.T
        days = np.maximum(n, 1.0)
        level = (sum_y - n) / (n + 4.0)
        slope = (sum_by - sum_b * sum_y / days) / (sum_bb - sum_b**2 / days + 2.0)
        excess = threshold - 1.0
        week = np.zeros((len(memory), 7))
        week[:, day % 7] = 1.0
        linear = [excess, excess**2, bonus, bonus * excess, usual - 1.0, tired, level, slope, slope * bonus]
        out = np.concatenate([week, np.stack(linear, axis=1)], axis=1)
        if not len(self._shift):
            return out
        own = np.stack([2.0 * excess, bonus, 4.0 * tired, 4.0 * level, 4.0 * slope, 2.0 * (usual - 1.0)], axis=1)
        return np.concatenate([out, np.tanh(own @ self._bend + self._shift)], axis=1)

    def _inputs_penalty(self, width: int) -> Floats:
        return np.where(np.arange(width) < 16, 1e-3, 1.0)


def paid_for(task: Floats, left: Floats) -> Floats:
    """Return tasks [n, 2], without a bonus where there is no money `left` [n]."""
    return np.stack([task[:, 0], np.where(left > 0.0, task[:, 1], 0.0)], axis=1)


def expected_day(drivers: Drivers, left: Floats, task: Floats, orders: Floats) -> tuple[Floats, Floats]:
    """Return [n] the reward expected of a day, over the value of usual orders, and the money spent.

    Args:
        drivers: n of them.
        left: [n] money.
        task: [n, 2].
        orders: [n] expected, by usual ones; they are Poisson.
    """
    base = drivers.base
    threshold, bonus = task[:, 0] * base, task[:, 1]
    needed = np.ceil(threshold)
    reached = orders * base * np.where(needed >= 2.0, pdtrc(np.maximum(needed - 2.0, 0.0), orders * base), 1.0)
    spend = np.minimum(bonus * reached, left)
    outside = np.maximum(drivers.low - threshold, 0.0) + np.maximum(threshold - drivers.high, 0.0)
    return orders - COST * spend / (VALUE * base) - outside / base, spend


def held_values(
    models: list[DriverModel],
    own: Counts,
    drivers: Drivers,
    memories: list[Floats],
    left: Floats,
    day: int,
    offered: tuple[int, ...],
    *,
    days: int = DAYS,
    penalty: float = 0.0,
    rivals: Counts | None = None,
) -> Floats:
    """Return [n, A] the reward per day of setting a task until the month ends, in each driver's own model.

    Args:
        models: the simulators.
        own: [n] which of them a driver is in.
        drivers: n of them.
        memories: [n, w] of each driver in every model.
        left: [n] money.
        day: today.
        offered: A codes.
        days: of the month.
        penalty: of the distance between own and rival model, by usual orders.
        rivals: [m] another model of the same city per model; needed for a penalty.
    """
    n, offers = len(own), len(offered)
    rows = np.repeat(np.arange(n), offers)
    who, money, of = drivers_at(drivers, rows), left[rows].copy(), own[rows]
    held, total = np.tile(TASKS[list(offered)], (n, 1)), np.zeros(n * offers)
    inside = [np.flatnonzero(of == number) for number in range(len(models))]
    against = None if rivals is None or penalty == 0.0 else rivals
    memory = [memories[number][rows[mine]] for number, mine in enumerate(inside)]
    other = [] if against is None else [memories[against[number]][rows[mine]] for number, mine in enumerate(inside)]
    for today in range(day, days):
        task, orders = paid_for(held, money), np.empty(n * offers)
        for number, mine in enumerate(inside):
            orders[mine] = models[number].mean(memory[number], today, task[mine])
            memory[number] = models[number].advance(memory[number], task[mine], orders[mine])
            if against is not None:
                rival = models[against[number]]
                total[mine] -= penalty * np.abs(rival.mean(other[number], today, task[mine]) - orders[mine])
                other[number] = rival.advance(other[number], task[mine], orders[mine])
        reward, spend = expected_day(who, money, task, orders)
        total += reward
        money -= spend
    return (total / (days - day)).reshape(n, offers)
