from __future__ import annotations

import numpy as np
import pytest

from decision.batch import Floats
from decision.gate import judge
from decision.ope.estimators.dr import dr, dr_sums
from decision.ope.estimators.lift import lift_of, with_reasons
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
    assert (lift.ess_new, lift.ess_old) == pytest.approx((new.ess, old.ess))
    assert lift.estimate().ess == min(lift.ess_new, lift.ess_old)


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
            verdict = judge(lift.estimate, alpha=0.05, margin=0.01, minimum_ess=50)
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
