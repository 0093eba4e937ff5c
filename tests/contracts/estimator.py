"""What every off-policy estimator keeps. Each check takes an `Estimator`: rows to sums, sums to an estimate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

from decision.batch import Batch, Floats, Interactions
from decision.errors import FieldError, SupportError
from decision.ope.estimate import Estimate
from decision.ope.weights import weights_of


class Estimator(NamedTuple):
    """An estimator; `sums(interactions, pmf, expected)` adds with `+`, `estimate(sums, level=...)` may be None.

    `constant` is what it makes of rewards that are all 1 where the model says so too; None for the mean weight.
    """

    sums: Callable[[Interactions, Floats, Floats], Any]
    estimate: Callable[..., Estimate | None]
    constant: float | None = 1.0


class World(NamedTuple):
    """A log, the evaluation policy's pmf, a reward model that is off, and the policy's true value."""

    log: Interactions
    pmf: Floats
    expected: Floats
    value: float


def world_of(rng: np.random.Generator, n: int, *, k: int = 3) -> World:
    """Return rewards of 0 or 1 with means .2, .4, ... of `k` actions; the log prefers the bad ones."""
    means = np.tile((np.arange(k) + 1.0) / (k + 2.0), (n, 1))
    logging = np.tile(np.linspace(2.0, 1.0, k) / np.linspace(2.0, 1.0, k).sum(), (n, 1))
    pmf = np.tile(np.linspace(1.0, 3.0, k) / np.linspace(1.0, 3.0, k).sum(), (n, 1))
    pick = (rng.random(n)[:, None] > logging.cumsum(1)).sum(1).clip(0, k - 1)
    rows = np.arange(n)
    reward = (rng.random(n) < means[rows, pick]).astype(np.float64)
    contexts = [{"row": float(row)} for row in rows]
    batch = Batch(contexts, [{}] * (n * k), ["a"] * (n * k), np.arange(n + 1) * k)
    log = Interactions(batch, rows * k + pick, logging[rows, pick], reward, logging.ravel())
    expected = np.tile(means[0][::-1] * 0.5 + 0.1, n)
    return World(log, pmf.ravel(), expected, float((pmf * means).sum(1).mean()))


def of(estimator: Estimator, log: Interactions, pmf: Floats, expected: Floats, level: float = 0.95) -> Estimate:
    out = estimator.estimate(estimator.sums(log, pmf, expected), level=level)
    assert out is not None
    return out


def check_intervals_cover_the_truth(estimator: Estimator) -> None:
    """400 logs of 300 rows; 95% intervals cover fewer than 362 times with probability 7e-5 if coverage is 95%."""
    rng = np.random.default_rng(1)
    covered, values = 0, []
    for _ in range(400):
        world = world_of(rng, 300)
        estimate = of(estimator, world.log, world.pmf, world.expected)
        covered += estimate.low <= world.value <= estimate.high
        values.append(estimate.value - world.value)
    assert covered >= 362
    # Bias below 4 standard errors of the mean of 400 values, plus 1/n for ratio estimators.
    assert abs(np.mean(values)) < 4 * np.std(values) / 20 + 1 / 300


def check_shards_add_up_to_the_whole(estimator: Estimator) -> None:
    world = world_of(np.random.default_rng(2), 200)
    whole = of(estimator, *world[:3])
    total = None
    for rows in np.array_split(np.random.default_rng(3).permutation(200), 7):
        flat = (rows[:, None] * 3 + np.arange(3)).ravel()
        part = estimator.sums(world.log.take(rows), world.pmf[flat], world.expected[flat])
        total = part if total is None else total + part
    merged = estimator.estimate(total, level=0.95)
    assert merged is not None
    assert (merged.n, merged.reasons) == (whole.n, whole.reasons)
    assert [merged.value, merged.low, merged.high, merged.ess] == pytest.approx(
        [whole.value, whole.low, whole.high, whole.ess], rel=1e-9, abs=1e-12
    )


def check_order_of_rows_does_not_matter(estimator: Estimator) -> None:
    world = world_of(np.random.default_rng(2), 100)
    order = np.random.default_rng(4).permutation(100)
    flat = (order[:, None] * 3 + np.arange(3)).ravel()
    again = of(estimator, world.log.take(order), world.pmf[flat], world.expected[flat])
    assert again.value == of(estimator, *world[:3]).value


def check_interval_tightens_with_data_and_widens_with_level(estimator: Estimator) -> None:
    rng = np.random.default_rng(5)
    small, large = world_of(rng, 200), world_of(rng, 3_200)
    narrow, wide = of(estimator, *small[:3], level=0.8), of(estimator, *small[:3], level=0.99)
    assert wide.low < narrow.low < narrow.value < narrow.high < wide.high
    assert narrow.value == wide.value
    few, many = of(estimator, *small[:3]), of(estimator, *large[:3])
    assert many.high - many.low < 0.4 * (few.high - few.low)
    assert many.ess > few.ess


def check_evaluating_the_logging_policy_is_close_to_the_mean_reward(estimator: Estimator) -> None:
    world = world_of(np.random.default_rng(6), 2_000)
    estimate = of(estimator, world.log, world.log.pmf, world.expected)
    assert estimate.ess == pytest.approx(2_000)
    assert estimate.low < world.log.reward.mean() < estimate.high


def check_estimate_scales_with_the_reward(estimator: Estimator) -> None:
    world = world_of(np.random.default_rng(7), 200)
    once = of(estimator, *world[:3])
    log = Interactions(world.log.batch, world.log.chosen, world.log.propensity, 50 * world.log.reward, world.log.pmf)
    scaled = of(estimator, log, world.pmf, 50 * world.expected)
    assert [scaled.value, scaled.low, scaled.high] == pytest.approx([50 * once.value, 50 * once.low, 50 * once.high])


def check_a_constant_reward_is_returned_as_it_is(estimator: Estimator) -> None:
    world = world_of(np.random.default_rng(12), 400)
    log = Interactions(world.log.batch, world.log.chosen, world.log.propensity, np.full(400, 0.7), world.log.pmf)
    estimate = of(estimator, log, world.pmf, np.full(1_200, 0.7))
    weights = weights_of(log, world.pmf)
    wanted = 0.7 * (weights.mean() if estimator.constant is None else estimator.constant)
    assert estimate.value == pytest.approx(wanted, rel=1e-12, abs=1e-12)
    assert estimate.low - 1e-9 <= 0.7 * (1.0 if estimator.constant is None else estimator.constant)
    assert estimate.high + 1e-9 >= 0.7 * (1.0 if estimator.constant is None else estimator.constant)


def check_sound_log_raises_no_doubt_and_a_wrong_one_does(estimator: Estimator) -> None:
    world = world_of(np.random.default_rng(8), 1_000)
    assert of(estimator, *world[:3]).reasons == ()
    halved = Interactions(
        world.log.batch, world.log.chosen, world.log.propensity / 2, world.log.reward, world.log.pmf / 2
    )
    assert any("mean weight" in reason for reason in of(estimator, halved, world.pmf, world.expected).reasons)


def check_little_support_is_said(estimator: Estimator) -> None:
    rng = np.random.default_rng(9)
    n = 500
    contexts = [{"row": float(row)} for row in range(n)]
    batch = Batch(contexts, [{}] * (2 * n), ["a"] * (2 * n), np.arange(n + 1) * 2)
    pick = (rng.random(n) < 0.01).astype(np.int64)
    pick[0] = 1
    propensity = np.where(pick == 1, 0.01, 0.99)
    log = Interactions(batch, np.arange(n) * 2 + pick, propensity, rng.random(n), np.tile((0.99, 0.01), n))
    estimate = of(estimator, log, np.tile((0.0, 1.0), n), np.full(2 * n, 0.5))
    assert any("effective sample size" in reason for reason in estimate.reasons)


def check_two_rows_are_the_least(estimator: Estimator) -> None:
    world = world_of(np.random.default_rng(10), 1)
    assert of(estimator, *world[:3]).reasons == ("fewer than two rows",)


def check_no_rows_are_no_estimate(estimator: Estimator) -> None:
    empty = Interactions(Batch([], [], [], np.array([0])), np.zeros(0, np.int64), *(np.zeros(0),) * 3)
    sums = estimator.sums(empty, np.zeros(0), np.zeros(0))
    try:
        estimate = estimator.estimate(sums, level=0.95)
    except SupportError:
        return
    assert estimate is None


def check_what_does_not_fit_is_refused_by_name(estimator: Estimator) -> None:
    world = world_of(np.random.default_rng(11), 20)
    with pytest.raises(FieldError) as caught:
        estimator.sums(world.log, world.pmf[:-1], world.expected)
    assert caught.value.field == "pmf"
    for wrong in (0.0, -0.1, 1.5, np.nan):
        propensity = world.log.propensity.copy()
        propensity[3] = wrong
        log = Interactions(world.log.batch, world.log.chosen, propensity, world.log.reward, world.log.pmf)
        with pytest.raises(FieldError) as caught:
            estimator.sums(log, world.pmf, world.expected)
        assert caught.value.field == "propensity"


CHECKS = [value for name, value in sorted(globals().items()) if name.startswith("check_")]
ADDITIVE = [
    check_a_constant_reward_is_returned_as_it_is,
    check_shards_add_up_to_the_whole,
    check_order_of_rows_does_not_matter,
    check_interval_tightens_with_data_and_widens_with_level,
    check_estimate_scales_with_the_reward,
    check_no_rows_are_no_estimate,
    check_what_does_not_fit_is_refused_by_name,
]
