"""Driver programme and retention as worlds of the study: what is known of them, and what is caught before users see it.

Trainings are short and seeded, so the same on every run of one torch version.
"""

from __future__ import annotations

import numpy as np
import pytest

from simulators.environments.driver_programme import DAYS, DriverProgrammeEnv, draw_drivers
from simulators.environments.retention import RetentionEnv, RetentionRules, draw_items
from simulators.studies import retention
from simulators.studies.drivers import programme
from simulators.studies.drivers.models import (
    EXECUTED,
    TASKS,
    LearnedModel,
    TrueModel,
    expected_day,
    held_values,
    logged_month,
    settled,
)
from simulators.studies.drivers.policies import cities_of, inputs_of, trend_of

DRIVERS = draw_drivers(np.random.default_rng(0), 150)
LOG = logged_month(DRIVERS, 1)


def test_true_model_expects_the_orders_of_the_world() -> None:
    env, model, task = DriverProgrammeEnv(DRIVERS), TrueModel(), np.tile([1.4, 1.0], (150, 1))
    env.reset(seed=1)
    memory = model.start(DRIVERS)
    for day in range(4):
        wanted = env.mean_orders(1.4 * DRIVERS.base, np.ones(150))
        assert DRIVERS.base * model.mean(memory, day, task) == pytest.approx(wanted)
        settled(env, task)
        memory = model.advance(memory, task, np.ones(150))


def test_expected_day_is_the_mean_of_many() -> None:
    few = draw_drivers(np.random.default_rng(2), 1)
    base, task, left = few.base[0], np.array([[1.1, 1.5]]), np.array([1e6])
    orders = np.random.default_rng(3).poisson(1.05 * base, 200_000)
    reached = np.where(orders >= 1.1 * base, 1.5 * orders, 0.0).mean()
    _, spend = expected_day(few, left, task, np.array([1.05]))
    assert spend[0] == pytest.approx(reached, rel=0.01)


def test_what_a_policy_sees_is_two_days_late() -> None:
    cities, group = programme.Cities([], []), np.zeros(150, np.int64)
    changed = LOG.take(np.arange(150))
    day = 12
    changed.orders[:, day - 2 :] += 50.0
    seen = [inputs_of(cities, DRIVERS, month, DRIVERS.budget, day, group) for month in (LOG, changed)]
    assert np.array_equal(seen[0], seen[1])
    changed.orders[:, day - 3] += 50.0
    assert not np.array_equal(
        seen[0], inputs_of(cities, DRIVERS, changed, DRIVERS.budget, day, np.zeros(150, np.int64))
    )


def test_learned_model_is_right_where_the_log_was_and_promises_too_much_beyond() -> None:
    own = np.zeros(150, np.int64)

    def valued(model, offered):
        return held_values([model], own, DRIVERS, [model.start(DRIVERS)], DRIVERS.budget, 0, offered)

    model, truth, everything = LearnedModel(LOG, 0), TrueModel(), tuple(range(len(TASKS)))
    assert np.abs(valued(model, EXECUTED).mean(axis=0) - valued(truth, EXECUTED).mean(axis=0)).max() < 0.05
    promised = valued(model, everything)
    best = promised.argmax(axis=1)[:, None]
    assert promised.max(axis=1).mean() > 1.05 * np.take_along_axis(valued(truth, everything), best, axis=1).mean()
    assert trend_of(model, LOG) > 0.8


def test_student_beyond_the_log_is_promised_too_much_and_the_gate_refuses_it() -> None:
    size = programme.Size(120, 30, 6, 8, 150, ("sim2rec", "without_filters", "logged"))
    methods = programme.run_job(programme.Job(0), size)["methods"]
    within, beyond = methods["sim2rec"], methods["without_filters"]
    assert beyond["believed"] / beyond["value"] > 1.05 > within["believed"] / within["value"]
    assert not beyond["gate"]["promote"]
    assert beyond["gate"]["weight"] < 0.7 < within["gate"]["weight"]
    assert within["value"] > methods["logged"]["value"]


def test_a_months_sets_are_embedded_whatever_their_size() -> None:
    cities = cities_of([[LearnedModel(LOG, 0), LearnedModel(LOG, 1)]], [LOG], 0)
    seen = inputs_of(cities, DRIVERS, LOG, DRIVERS.budget, 9, np.zeros(150, np.int64))
    assert seen.shape == (150, cities.width)
    assert np.ptp(seen[:, 15:], axis=0) == pytest.approx(np.zeros(3), abs=1e-6)
    assert LOG.tasks.shape == (150, DAYS)


def test_copied_users_are_as_bored_as_those_they_are_copies_of() -> None:
    env = RetentionEnv(draw_items(np.random.default_rng(0), 50, 5), 30, RetentionRules(threshold=3, offset=0.2))
    env.reset(seed=1)
    shown = np.random.default_rng(1).integers(0, 50, (30, 10))
    for _ in range(3):
        env.step(shown)
    rows = np.array([4, 4, 9])
    copies = env.take(rows, 7)
    assert np.array_equal(copies.bored, env.bored[rows])
    assert np.array_equal(copies.click_probabilities(shown[rows]), env.click_probabilities(shown)[rows])
    before = env.near.copy()
    copies.step(shown[rows])
    assert np.array_equal(env.near, before)


def test_clicks_after_the_last_day_do_not_count() -> None:
    feed = retention.Feed(5, 20, 0)
    feed.elapsed[:] = retention.DAYS
    assert feed.visit(np.full(20, 5)).sum() == 0.0
    feed = retention.Feed(5, 20, 0)
    assert feed.visit(np.full(20, 5)).sum() > 0.0


def test_a_level_between_is_best_in_retention_and_another_one_in_every_group() -> None:
    best = [int(retention.held(group, 0, users=60).argmax()) for group in (6, retention.TARGET, 10)]
    assert [retention.LEVELS[level] for level in best] == [2, 4, 7]
