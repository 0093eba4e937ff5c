"""The driver programme: the arithmetic of a day, budgets, and a trend that any learned copy must keep."""

from __future__ import annotations

import numpy as np
import pytest

from decision.errors import FieldError
from simulators.environments.driver_programme import LARGEST_BONUS, DriverProgrammeEnv, Drivers, draw_drivers

DRIVERS = draw_drivers(np.random.default_rng(0), 200)


def test_reward_of_a_day_is_the_stated_sum() -> None:
    env = DriverProgrammeEnv(DRIVERS)
    env.reset(seed=1)
    levels = np.random.default_rng(2).uniform(-1, 1, (200, 2))
    _, reward, _, _, info = env.step(levels)
    threshold, bonus = (levels[:, 0] + 1) * 25.0, (levels[:, 1] + 1) * 2.0
    paid = np.where(info["orders"] >= threshold, bonus * info["orders"], 0.0)
    assert info["spend"] == pytest.approx(np.minimum(paid, DRIVERS.budget))
    outside = np.maximum(DRIVERS.low - threshold, 0) + np.maximum(threshold - DRIVERS.high, 0)
    known = 20 * info["orders"] - 0.9 * 20 / (LARGEST_BONUS + 0.01) * info["spend"] - 20 * outside
    assert reward == pytest.approx(known, rel=1e-5)


def test_nobody_is_paid_more_than_his_budget() -> None:
    env = DriverProgrammeEnv(DRIVERS)
    env.reset(seed=1)
    spent = sum(env.step(np.tile([-0.9, 1.0], (200, 1)))[4]["spend"] for _ in range(28))
    assert (spent <= DRIVERS.budget + 1e-9).all()
    assert (spent > 0.9 * DRIVERS.budget).mean() > 0.5


def test_orders_do_not_fall_as_the_bonus_rises() -> None:
    env = DriverProgrammeEnv(DRIVERS)
    env.reset(seed=1)
    means = np.array([env.mean_orders(DRIVERS.base, np.full(200, bonus)) for bonus in np.linspace(0, 4, 9)])
    assert (np.diff(means, axis=0) >= 0).all()


def test_without_budget_a_bonus_moves_nobody() -> None:
    env = DriverProgrammeEnv(DRIVERS)
    env.reset(seed=1)
    env.left[:] = 0.0
    assert np.array_equal(
        env.mean_orders(DRIVERS.base, np.full(200, 4.0)), env.mean_orders(DRIVERS.base, np.zeros(200))
    )


def test_hard_tasks_wear_drivers_out() -> None:
    env = DriverProgrammeEnv(DRIVERS)
    env.reset(seed=1)
    before = env.mean_orders(DRIVERS.base, np.zeros(200))
    for _ in range(7):
        env.step(np.tile([1.0, -1.0], (200, 1)))
    assert (env.mean_orders(DRIVERS.base, np.zeros(200)) < before).mean() > 0.95


def test_the_log_is_two_days_late() -> None:
    env = DriverProgrammeEnv(DRIVERS)
    env.reset(seed=1)
    action, orders = np.zeros((200, 2)), []
    for day in range(6):
        observed, *_, info = env.step(action)
        orders.append(info["orders"])
        if day >= 2:
            assert observed[:, 6] == pytest.approx(orders[day - 2])


def test_cities_differ() -> None:
    busy, calm = (draw_drivers(np.random.default_rng(3), 500, city=city) for city in (1.0, -1.0))
    assert busy.base.mean() > 1.3 * calm.base.mean()
    with pytest.raises(FieldError, match="city"):
        draw_drivers(np.random.default_rng(0), 5, city=2.0)


def test_impossible_drivers_are_refused() -> None:
    one = np.ones(1)
    with pytest.raises(FieldError, match=r"drivers\.low"):
        Drivers(one, one, 2 * one, one, one)
