"""A driver programme: each day every driver is set a task, "finish k orders and get a bonus", under a budget.

The protocol is that of Sim2Rec's driver programme recommendation (Chen et al. 2023): daily steps, an order threshold
and a bonus per order as the action, bounds per driver, a log two days late, the same reward. The data are not public;
the responses here are ours: a task in reach that pays moves a driver, hard tasks day after day wear him out.

    mean orders = base weekday (1 + lift),   lift = elasticity log(1 + bonus) reach - fatigue
    reach = exp(-((k - base) / (base / 2))^2),   fatigue' = .8 fatigue + wear max(k / base - 1, 0)
    reward = 20 orders - .9 spend 20 / (largest bonus + .01) - 20 distance of k outside of the driver's bounds
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from decision.batch import Floats
from decision.errors import FieldError
from simulators.environments.lts.env import MAX_USERS, Singles

DAYS, DELAY = 28, 2
LARGEST_THRESHOLD, LARGEST_BONUS = 50.0, 4.0
WEAR, RESTING = 0.05, 0.8
"""What a hard task adds to fatigue in the usual city, and the share of fatigue that a night leaves."""
VALUE = 20.0
"""Of an order."""
COST = 0.9 * VALUE / (LARGEST_BONUS + 0.01)
"""Of a unit of bonus."""
WEEK = np.array([1.0, 0.97, 0.98, 1.0, 1.08, 1.15, 1.05])
"""Orders on each day of it, by usual ones."""


@dataclass(frozen=True, slots=True, eq=False)
class Drivers:
    """n drivers of a city.

    Attributes:
        base: [n] orders on a usual day, above 0.
        elasticity: [n] how much a bonus moves, 0 or more.
        low: [n] least threshold the driver may be set.
        high: [n] greatest one.
        budget: [n] bonus money for the whole episode.
        wear: how much a hard task tires, the same for all drivers of a city, 0 or more.
    """

    base: Floats
    elasticity: Floats
    low: Floats
    high: Floats
    budget: Floats
    wear: float = WEAR

    def __post_init__(self) -> None:
        n = len(self.base)
        if not 1 <= n <= MAX_USERS:
            raise FieldError("drivers", wanted=f"1 to {MAX_USERS:,}", got=n)
        for name in ("base", "elasticity", "low", "high", "budget"):
            values = getattr(self, name)
            if values.shape != (n,) or not np.isfinite(values).all() or values.min() < 0.0:
                raise FieldError(f"drivers.{name}", wanted=f"{n} numbers of 0 or more", got=values)
        if (self.low > self.high).any() or self.base.min() <= 0.0:
            raise FieldError("drivers.low", wanted="at most the upper bound, and a base above 0", got=self.low)
        if not 0.0 <= self.wear < np.inf:
            raise FieldError("drivers.wear", wanted="a number of 0 or more", got=self.wear)


def draw_drivers(rng: np.random.Generator, drivers: int, *, city: float = 0.0, wear: float = WEAR) -> Drivers:
    """Return drivers of a city; `city` in [-1, 1] shifts how busy it is and how much a bonus moves.

    Raises:
        FieldError: `city` is out of range.
    """
    if not -1.0 <= city <= 1.0:
        raise FieldError("city", wanted="a number in [-1, 1]", got=city)
    base = rng.gamma(9.0, (1.6 + 0.4 * city), drivers)
    elasticity = rng.beta(2.0, 4.0, drivers) * (0.6 - 0.2 * city)
    return Drivers(base, elasticity, 0.6 * base, 1.6 * base, rng.uniform(15.0, 25.0, drivers) * base, wear)


def levels_of(threshold: Floats, bonus: Floats) -> Floats:
    """Return actions [n, 2] in [-1, 1] of thresholds and bonuses [n], cut to what the programme can set."""
    share = np.stack([threshold / LARGEST_THRESHOLD, bonus / LARGEST_BONUS], axis=1)
    return np.clip(2.0 * share - 1.0, -1.0, 1.0)


class DriverProgrammeEnv(VectorEnv):
    """All drivers of a city at once, one day per step.

    Action: two numbers in [-1, 1] per driver, scaled to a threshold in [0, 50] orders and a bonus in [0, 4] per order.
    The bonus is paid on all orders of a day on which the threshold was reached, and only from what is left of the
    driver's budget. Observation: orders of the last seven days that the log already has (two days late, 0 before),
    day of the week as a point on a circle, share of the budget left, lower and upper bound. ``info`` holds ``orders``,
    ``spend`` and ``outside`` [n].
    """

    metadata = {"autoreset_mode": AutoresetMode.DISABLED, "render_modes": []}  # noqa: RUF012 as gymnasium declares it

    def __init__(self, drivers: Drivers, *, days: int = DAYS) -> None:
        """Set up.

        Raises:
            FieldError: `days` is below 1.
        """
        if days < 1:
            raise FieldError("days", wanted="1 or more", got=days)
        self.drivers, self.days, self.num_envs = drivers, days, len(drivers.base)
        self.single_observation_space = spaces.Box(-1.0, np.inf, (12,), np.float32)
        self.single_action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self._begin()

    def _begin(self) -> None:
        n = self.num_envs
        self.fatigue, self.left = np.zeros(n), self.drivers.budget.copy()
        self.day, self._orders = 0, np.zeros((n, self.days + 7 + DELAY), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Singles, dict[str, Any]]:
        """Start a month with the same drivers, rested and with full budgets."""
        super().reset(seed=seed)
        self._begin()
        return self._observed(), {}

    def mean_orders(self, threshold: Floats, bonus: Floats) -> Floats:
        """Return [n] the orders expected today under tasks ([n], [n]); a bonus without budget moves nobody."""
        base = self.drivers.base
        paid = np.where(self.left > 0.0, bonus, 0.0)
        reach = np.exp(-np.square((threshold - base) / (base / 2.0)))
        lift = self.drivers.elasticity * np.log1p(paid) * reach - self.fatigue
        return base * WEEK[self.day % 7] * np.maximum(1.0 + lift, 0.05)

    def step(self, actions: Any) -> tuple[Singles, Singles, NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Set everyone a task for the day, [n, 2] in [-1, 1].

        Raises:
            FieldError: actions of another shape, out of range, or the month is over.
        """
        level, n = np.asarray(actions, np.float64), self.num_envs
        if level.shape != (n, 2) or not (np.abs(level) <= 1.0).all():
            raise FieldError("actions", wanted=f"numbers [{n}, 2] in [-1, 1]", got=level)
        if self.day >= self.days:
            raise FieldError(
                "actions",
                wanted="of a month that is not over",
                got=None,
                says=f"the month is over on day {self.day}: call reset",
            )
        threshold, bonus = ((level + 1.0) / 2.0 * (LARGEST_THRESHOLD, LARGEST_BONUS)).T
        orders = self.np_random.poisson(self.mean_orders(threshold, bonus)).astype(np.float64)
        spend = np.minimum(np.where(orders >= threshold, bonus * orders, 0.0), self.left)
        low, high = self.drivers.low, self.drivers.high
        outside = np.maximum(low - threshold, 0.0) + np.maximum(threshold - high, 0.0)
        reward = VALUE * orders - COST * spend - VALUE * outside
        self.left -= spend
        self.fatigue = RESTING * self.fatigue + self.drivers.wear * np.maximum(threshold / self.drivers.base - 1.0, 0.0)
        self._orders[:, 7 + DELAY + self.day] = orders
        self.day += 1
        over = np.full(n, self.day >= self.days)
        told = {"orders": orders, "spend": spend, "outside": outside}
        return self._observed(), reward.astype(np.float32), np.zeros(n, np.bool_), over, told

    def _observed(self) -> Singles:
        week = self._orders[:, self.day : self.day + 7]  # ends DELAY days before yesterday's place
        angle = 2.0 * np.pi * (self.day % 7) / 7.0
        rest = np.stack(
            [
                np.full(self.num_envs, np.cos(angle)),
                np.full(self.num_envs, np.sin(angle)),
                self.left / np.maximum(self.drivers.budget, 1e-9),
                self.drivers.low,
                self.drivers.high,
            ],
            axis=1,
        )
        return np.concatenate([week, rest], axis=1).astype(np.float32)
