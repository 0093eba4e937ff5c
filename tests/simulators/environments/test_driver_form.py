"""The driver programme as a form: what it expects is what the world does, and a log tells its numbers."""

from __future__ import annotations

import numpy as np
import pytest

from decision.batch import Floats
from simulators.environments.driver_form import FORM
from simulators.environments.driver_programme import DriverProgrammeEnv, Drivers, levels_of
from simulators.learned.fitting import fitted
from simulators.learned.forms import form_of
from simulators.learned.trajectories import Trajectories, catalogue_of, scale_of

GROUP = np.array([np.log(12.0), 0.2, 0.12])
SHARES, BONUSES = np.array([0.5, 0.7, 0.9, 1.1, 1.5]), np.array([0.0, 1.0, 2.5, 4.0])
TASKS = np.stack(np.meshgrid(SHARES, BONUSES, indexing="ij"), axis=-1).reshape(-1, 2)


def city(traits: Floats) -> DriverProgrammeEnv:
    """Return the world whose drivers have these traits in the city of `GROUP`."""
    base, elasticity = np.exp(GROUP[0] + traits[:, 0]), np.maximum(GROUP[1] + traits[:, 1], 0.0)
    return DriverProgrammeEnv(Drivers(base, elasticity, 0.6 * base, 1.6 * base, traits[:, 2] * base, GROUP[2]))


def set_tasks(env: DriverProgrammeEnv, shown: Floats) -> Floats:
    """Return [n] what a day of tasks [n, 2] brings."""
    return env.step(levels_of(shown[:, 0] * env.drivers.base, shown[:, 1]))[1].astype(np.float64)


def log_of(drivers: int, seed: int) -> Trajectories:
    """Return a month of tasks drawn at random."""
    rng = np.random.default_rng(seed)
    traits = FORM.traits(rng, drivers)
    env = city(traits)
    env.reset(seed=seed)
    actions = rng.integers(0, len(TASKS), (drivers, env.days))
    rewards = np.stack([set_tasks(env, TASKS[actions[:, day]]) for day in range(env.days)], axis=1)
    catalogue = catalogue_of([str(number) for number in range(len(TASKS))], TASKS.astype(np.float32), actions)
    propensities = np.full(actions.shape, 1.0 / len(TASKS), np.float32)
    return Trajectories(actions, rewards.astype(np.float32), propensities, catalogue, scale_of(rewards))


def test_the_form_is_named() -> None:
    assert form_of("driver-programme") is FORM


def test_states_follow_the_world_day_by_day() -> None:
    """Fatigue to rounding; money as the reward tells it, which is in single precision."""
    traits = FORM.traits(np.random.default_rng(1), 200)
    env, rng = city(traits), np.random.default_rng(2)
    env.reset(seed=3)
    group, state = np.tile(GROUP, (200, 1)), FORM.start(np.tile(GROUP, (200, 1)), traits)
    for _ in range(env.days):
        shown = TASKS[rng.integers(0, len(TASKS), 200)]
        reward = set_tasks(env, shown)
        state = FORM.after(group, traits, state, shown, reward)
        assert state[:, 0] == pytest.approx(env.fatigue)
        assert traits[:, 2] * env.drivers.base - state[:, 1] == pytest.approx(env.left, abs=1e-2)
    assert (env.left < 1e-6).any()  # or the test has not seen a budget end


def test_the_expected_reward_is_the_mean_of_the_worlds() -> None:
    """20,000 copies of 20 drivers on one day each: within five standard errors.

    All have 15 usual orders, so that thresholds lie half between whole numbers, where the form has no step to round.
    """
    few = FORM.traits(np.random.default_rng(4), 20)
    few[:, 0] = np.log(15.0) - GROUP[0]
    shown = TASKS[np.random.default_rng(5).integers(0, len(TASKS), 20)]
    copies, group = 20_000 // 20, np.tile(GROUP, (20, 1))
    env = city(np.repeat(few, copies, axis=0))
    env.reset(seed=6)
    rewards = set_tasks(env, np.repeat(shown, copies, axis=0)).reshape(20, copies)
    gap = rewards.mean(axis=1) - FORM.mean(group, few, FORM.start(group, few), shown)
    assert (np.abs(gap) < 5.0 * rewards.std(axis=1) / np.sqrt(copies) + 1e-3).all()


def test_a_month_of_a_city_tells_its_numbers() -> None:
    """Within four of the standard errors that the fit states, and those are small: the drivers are few."""
    found = fitted(FORM, log_of(40, 0), 0)
    assert found.names == ("busy", "pull", "wear")
    assert (np.abs(found.group - GROUP) < 4.0 * found.errors).all()
    assert (found.errors < np.array([0.1, 0.1, 0.05])).all()
