from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from decision.batch import Batch, Floats, Interactions
from decision.gate import Reference, judge
from decision.ope.estimators.dr import dr, dr_sums
from decision.ope.estimators.lift import lift_of, switched_lift_of, with_reasons
from decision.options import Range
from tests.contracts.estimator import World, world_of


def moved(world: World, share: float) -> Floats:
    """Return the logging policy with `share` of each decision's probability moved to the best action, the third."""
    pmf = world.log.pmf.copy().reshape(-1, 3)
    pmf = (1 - share) * pmf
    pmf[:, 2] += share
    return pmf.ravel()


def true_lift(world: World, new: Floats, old: Floats) -> float:
    means = np.tile((np.arange(3) + 1.0) / 5.0, len(world.log))
    return float(((new - old) * means).reshape(-1, 3).sum(1).mean())


def test_a_policy_is_no_better_than_itself_without_any_doubt() -> None:
    world = world_of(np.random.default_rng(0), 300)
    estimate = lift_of(world.log, world.pmf, world.pmf, world.expected).estimate()
    assert (estimate.value, estimate.low, estimate.high) == (0.0, 0.0, 0.0)


def test_lift_is_the_difference_of_the_two_estimates() -> None:
    world = world_of(np.random.default_rng(1), 300)
    lift = lift_of(world.log, world.pmf, world.log.pmf, world.expected)
    new, old = (dr(dr_sums(world.log, pmf, world.expected)) for pmf in (world.pmf, world.log.pmf))
    assert lift.estimate().value == pytest.approx(new.value - old.value)
    assert lift.estimate().ess == pytest.approx(min(new.ess, old.ess))


def test_exchanged_policies_have_the_opposite_lift() -> None:
    world = world_of(np.random.default_rng(2), 300)
    forth = lift_of(world.log, world.pmf, world.log.pmf, world.expected).estimate()
    back = lift_of(world.log, world.log.pmf, world.pmf, world.expected).estimate()
    assert (back.value, back.low, back.high) == pytest.approx((-forth.value, -forth.high, -forth.low))
    assert back.ess == pytest.approx(forth.ess)


def test_paired_interval_of_close_policies_is_far_narrower_than_either_alone() -> None:
    world = world_of(np.random.default_rng(3), 1_000)
    lift = lift_of(world.log, moved(world, 0.05), world.log.pmf, world.expected).estimate()
    alone = dr(dr_sums(world.log, world.log.pmf, world.expected))
    assert lift.high - lift.low < 0.2 * (alone.high - alone.low)


def test_lower_bound_is_the_lower_end_of_the_two_sided_interval_at_twice_the_error() -> None:
    world = world_of(np.random.default_rng(4), 300)
    lift = lift_of(world.log, world.pmf, world.log.pmf, world.expected)
    assert lift.lower_bound(0.05) == lift.estimate(level=0.9).low


@pytest.mark.statistical
def test_lower_bound_holds_as_often_as_it_says() -> None:
    """500 logs at alpha .05: more than 47 misses have probability 2e-5 if the bound is exact."""
    rng = np.random.default_rng(5)
    missed = 0
    for _ in range(500):
        world = world_of(rng, 300)
        lift = lift_of(world.log, world.pmf, world.log.pmf, world.expected)
        missed += lift.lower_bound(0.05) > true_lift(world, world.pmf, world.log.pmf)
    assert missed <= 47


@pytest.mark.statistical
def test_gate_refuses_worse_versions_and_promotes_better_ones() -> None:
    """100 logs of 1,000 rows. A version .05 worse passes margin .01 at most 5 in 100 times: above 15 with probability
    4e-5. A version .05 better, about 7 standard errors, is promoted nearly always."""
    rng = np.random.default_rng(6)
    worse, better = 0, 0
    for _ in range(100):
        world = world_of(rng, 1_000)
        good = moved(world, 0.25)
        for new, old in ((world.log.pmf, good), (good, world.log.pmf)):
            lift = lift_of(world.log, new, old, world.expected)
            verdict = judge([Reference("the champion", lift.estimate)], alpha=0.05, margin=0.01, minimum_ess=50)
            if new is good:
                better += verdict.promote
            else:
                worse += verdict.promote
    assert true_lift(world, good, world.log.pmf) > 0.05
    assert worse <= 15
    assert better >= 95


def test_further_reasons_are_added_to_an_estimate() -> None:
    world = world_of(np.random.default_rng(7), 300)
    estimate = lift_of(world.log, world.pmf, world.log.pmf, world.expected).estimate()
    assert with_reasons(estimate, "the log is old").reasons == (*estimate.reasons, "the log is old")


def test_slices_of_a_log_add_up_to_its_lift() -> None:
    world = world_of(np.random.default_rng(8), 400)
    whole = lift_of(world.log, world.pmf, world.log.pmf, world.expected)
    parts = []
    for rows in (np.arange(130), np.arange(130, 400)):
        flat = (3 * rows[:, None] + np.arange(3)).ravel()
        log = world.log.take(rows)
        parts.append(lift_of(log, world.pmf[flat], world.log.pmf[flat], world.expected[flat]))
    assert parts[0] + parts[1] == whole
    assert (parts[1] + parts[0]).estimate() == whole.estimate()


def clicks(rng: np.random.Generator, n: int, means: Floats, logging: Floats) -> Interactions:
    """Return a log of rewards 0 and 1 with the given `means` by action."""
    k = len(means)
    batch = Batch([{}] * n, [{}] * (k * n), ["a"] * (k * n), np.arange(n + 1) * k)
    pick = (rng.random(n)[:, None] > logging.cumsum()[None, :]).sum(1).clip(0, k - 1)
    reward = (rng.random(n) < means[pick]).astype(np.float64)
    return Interactions(batch, np.arange(n) * k + pick, logging[pick], reward, np.tile(logging, n))


RARE = np.array([0.00585, 0.00015, 0.00015])


def test_a_version_without_clicks_is_refused_however_small_they_are() -> None:
    """40,000 decisions of a champion worth .00585; a version worth .00015 lies within any margin of .01."""
    rng = np.random.default_rng(9)
    champion, version = np.array([0.98, 0.01, 0.01]), np.array([0.01, 0.01, 0.98])
    log = clicks(rng, 40_000, RARE, 0.9 * champion + 0.1 / 3)
    new, old, base = (np.tile(pmf, 40_000) for pmf in (version, champion, np.full(3, 1 / 3)))
    expected = np.tile(RARE * rng.uniform(0.5, 1.5, 3), 40_000)
    lift, kept = lift_of(log, new, old, expected), lift_of(log, new, 0.95 * old + 0.05 * base, expected)
    switched = switched_lift_of(log, new, old, expected)
    reference = Reference("the champion", lift.estimate, kept.estimate, switched.estimate)
    verdict = judge([reference], alpha=0.05, minimum_ess=50)
    assert not verdict.promote
    assert verdict.numbers["lower_bound"] < -0.005


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_verdict_does_not_change_with_the_unit_of_the_rewards(scale: float) -> None:
    rng = np.random.default_rng(10)
    for share in (0.02, 0.2, 0.5):
        world = world_of(rng, 800)
        new, base = moved(world, share), np.full(len(world.pmf), 1 / 3)
        found = []
        for factor in (1.0, scale):
            log = dataclasses.replace(world.log, reward=factor * world.log.reward)
            kept = 0.95 * world.log.pmf + 0.05 * base
            lifts = [
                of(log, new, old, factor * world.expected, Range(low=0.0, high=factor))
                for of, old in ((lift_of, world.log.pmf), (lift_of, kept), (switched_lift_of, world.log.pmf))
            ]
            found.append(judge([Reference("it", *(one.estimate for one in lifts))], alpha=0.05, minimum_ess=50))
        assert found[0].promote == found[1].promote
        assert found[1].numbers["lower_bound"] == pytest.approx(scale * found[0].numbers["lower_bound"], rel=1e-9)


@pytest.mark.statistical
def test_bounded_interval_of_a_lift_holds_where_hardly_anything_is_rewarded() -> None:
    """200 logs of 1,500 decisions with about five clicks: more than 9% misses of 5% have probability 8e-3."""
    rng = np.random.default_rng(11)
    new, old = np.array([0.1, 0.2, 0.7]), np.array([0.5, 0.3, 0.2])
    means = np.array([0.002, 0.004, 0.006])
    truth, missed, bounded = float((new - old) @ means), 0, 0
    for _ in range(200):
        log = clicks(rng, 1_500, means, old)
        lift = lift_of(log, np.tile(new, 1_500), np.tile(old, 1_500), np.tile(0.9 * means, 1_500))
        estimate = lift.estimate()
        bounded += any("bounded" in reason for reason in estimate.reasons)
        missed += not estimate.low <= truth <= estimate.high
    assert bounded > 150
    assert missed <= 18
