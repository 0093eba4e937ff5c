from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decision.errors import FieldError
from decision.guard.drift import after_batch, has_drifted, no_drift
from decision.guard.evidence import (
    Evidence,
    certified_rung,
    evidence_of,
    is_better,
    is_futile,
    log_mean_wealth,
    no_evidence,
)
from decision.guard.rules import GuardRules
from simulators.environments.rollout import roll_out, world_with_lift

RULES = GuardRules()


def decisions(rng: np.random.Generator, n: int, rho: float, good: float, bad: float):
    """Two actions; the baseline takes the second with .5, the candidate with .8; rewards good (second) and bad."""
    p_b, p_c = np.array([0.5, 0.5]), np.array([0.2, 0.8])
    p = (1 - rho) * p_b + rho * p_c
    action = (rng.random(n) < p[1]).astype(int)
    reward = (rng.random(n) < np.where(action == 1, good, bad)).astype(float)
    return reward, p_c[action] / p[action], p_b[action] / p[action], np.full(n, rho)


def same(a: Evidence, b: Evidence) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def test_rungs_begin_at_the_free_floor_and_end_below_one() -> None:
    assert RULES.rungs[0] == RULES.alpha
    assert RULES.rungs[-1] == RULES.top < 1
    assert list(RULES.rungs) == sorted(set(RULES.rungs))
    assert len(RULES.rungs) == 19


@pytest.mark.parametrize("field", ["alpha", "delta", "top", "reward_max", "batch", "drift_threshold", "spacing"])
def test_rules_that_make_no_sense_name_the_field(field: str) -> None:
    with pytest.raises(FieldError) as caught:
        GuardRules(**{field: -1})
    assert caught.value.field == field


def test_evidence_of_one_decision_is_the_closed_form() -> None:
    evidence = evidence_of(np.array([1.0]), np.array([1.6 / 1.015]), np.array([1 / 1.015]), np.array([0.025]), RULES)
    rung = RULES.rungs[1]
    y = rung * 1.6 / 1.015 - (rung - 0.05) / 1.015
    bet = min(RULES.bets[3], 0.95 * (1 - 0.025) / (rung - 0.05))
    assert evidence.ladder[1, 3] / 2**40 == pytest.approx(np.log1p(bet * y), abs=1e-11)
    assert (evidence.ladder[0] == 0).all(), "the free rung needs no evidence"


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), cuts=st.lists(st.integers(0, 300), max_size=5))
def test_evidence_is_the_same_bit_for_bit_however_decisions_are_split_and_ordered(seed: int, cuts: list[int]) -> None:
    rng = np.random.default_rng(seed)
    rows = decisions(rng, 300, 0.3, 0.3, 0.1)
    whole = evidence_of(*rows, RULES)
    order = rng.permutation(300)
    merged = no_evidence(RULES)
    bounds = [0, *sorted(cuts), 300]
    for low, high in itertools.pairwise(bounds):
        part = order[low:high]
        merged = merged.merge(evidence_of(*(column[part] for column in rows), RULES))
    assert np.array_equal(merged.ladder, whole.ladder)
    assert np.array_equal(merged.futility, whole.futility)
    assert np.array_equal(merged.promotion, whole.promotion)
    assert merged.decisions == whole.decisions


def test_evidence_refuses_negative_rewards_and_weights_that_are_no_mixture() -> None:
    with pytest.raises(FieldError, match="reward"):
        evidence_of(np.array([-1.0]), np.ones(1), np.ones(1), np.array([0.1]), RULES)
    with pytest.raises(FieldError, match="weights"):
        evidence_of(np.array([1.0]), np.array([2.0]), np.ones(1), np.array([0.1]), RULES)


def test_rewards_above_the_maximum_are_cut_and_counted() -> None:
    over = evidence_of(np.array([5.0]), np.ones(1), np.ones(1), np.array([0.1]), RULES)
    at = evidence_of(np.array([1.0]), np.ones(1), np.ones(1), np.array([0.1]), RULES)
    assert over.clipped == 1
    assert np.array_equal(over.ladder, at.ladder)


@settings(max_examples=100, deadline=None)
@given(
    rho=st.sampled_from([0.0, 0.05, 0.5, 0.95]),
    p_b=st.floats(0.001, 0.999),
    p_c=st.floats(0.0, 1.0),
    reward=st.sampled_from([0.0, 1.0]),
    center=st.sampled_from([0.0, 0.05, 0.5, 0.95]),
)
def test_wealth_stays_positive_at_the_worst_decision(
    rho: float, p_b: float, p_c: float, reward: float, center: float
) -> None:
    served, rules = (1 - rho) * p_b + rho * p_c, GuardRules(center=center)
    w_c, w_b = np.array([p_c / served]), np.array([p_b / served])
    evidence = evidence_of(np.array([reward]), w_c, w_b, np.array([rho]), rules)
    assert (evidence.ladder > -(2**40) * 10).all()
    assert (evidence.futility > -(2**40) * 10).all()


@pytest.mark.parametrize("center", [0.0, 0.3, 0.9])
def test_wealth_factor_has_mean_of_at_most_one_when_the_rung_breaks_its_promise(center: float) -> None:
    """Exact expectation over both actions and both rewards, no draw: the supermartingale property itself."""
    p_b, p_c = np.array([0.5, 0.5]), np.array([0.0, 1.0])
    means = np.array([0.30, 0.30 * 0.9])  # the candidate is worth 10% less
    rules = GuardRules(center=center)
    for rho in (0.05, 0.3, 0.9):
        p = (1 - rho) * p_b + rho * p_c
        for index, rung in enumerate(RULES.rungs[1:], start=1):
            value_b, value_c = float(p_b @ means), float(p_c @ means)
            if (1 - rung) * value_b + rung * value_c >= (1 - RULES.alpha) * value_b:
                continue
            expected, better = np.zeros(len(rules.bets)), np.zeros(len(rules.bets))
            for action, reward in np.ndindex(2, 2):
                w_c, w_b = p_c[[action]] / p[action], p_b[[action]] / p[action]
                one = evidence_of(np.array([float(reward)]), w_c, w_b, np.array([rho]), rules)
                chance = p[action] * (means[action] if reward else 1 - means[action])
                expected += chance * np.exp(one.ladder[index] / 2**40)
                better += chance * np.exp(one.promotion / 2**40)
            assert (expected <= 1 + 1e-9).all()
            assert (better <= 1 + 1e-9).all()


def test_a_center_near_the_mean_reward_shows_sooner_what_is_better_where_rewards_are_frequent() -> None:
    rows = decisions(np.random.default_rng(4), 4_000, 0.3, 0.85, 0.8)
    plain, centred = evidence_of(*rows, RULES), evidence_of(*rows, GuardRules(center=0.8))
    assert log_mean_wealth(centred.promotion) > log_mean_wealth(plain.promotion) + 1.0
    assert certified_rung(centred, GuardRules(center=0.8)) >= certified_rung(plain, RULES)


def test_good_candidate_climbs_and_bad_one_is_futile() -> None:
    rng = np.random.default_rng(0)
    good = evidence_of(*decisions(rng, 20_000, 0.3, 0.4, 0.1), RULES)
    bad = evidence_of(*decisions(rng, 20_000, 0.3, 0.1, 0.4), RULES)
    assert certified_rung(good, RULES) == len(RULES.rungs) - 1
    assert is_better(good, RULES)
    assert not is_futile(good, RULES)
    # At rung .10 the mixture is worth .241 against a promise of .2375, at .15 it is worth .2365.
    assert RULES.rungs[certified_rung(bad, RULES)] <= 0.10
    assert is_futile(bad, RULES)
    assert not is_better(bad, RULES)


def test_rung_is_served_only_when_all_below_it_hold() -> None:
    evidence = no_evidence(RULES)
    ladder = evidence.ladder.copy()
    ladder[1] = ladder[3] = 2**40 * 10
    assert certified_rung(evidence._replace(ladder=ladder), RULES) == 1


def test_mean_wealth_is_the_mean_of_wealths() -> None:
    logs = np.array([[0, 2**40, 2 * 2**40]])
    assert log_mean_wealth(logs)[0] == pytest.approx(np.log(np.mean([1, np.e, np.e**2])))


def test_drift_is_seen_when_the_promise_breaks_and_not_before() -> None:
    rng = np.random.default_rng(0)
    state = no_drift(RULES)
    assert not has_drifted(state, RULES)
    for _ in range(30):
        reward, _, w_b, _ = decisions(rng, RULES.batch, 0.9, 0.3, 0.1)
        state = after_batch(state, reward, w_b, RULES)
    assert not has_drifted(state, RULES)
    for _ in range(15):
        reward, _, w_b, _ = decisions(rng, RULES.batch, 0.9, 0.1, 0.3)
        state = after_batch(state, reward, w_b, RULES)
    assert has_drifted(state, RULES)


def test_world_has_the_lift_that_was_asked_for() -> None:
    for lift in (-0.3, -0.06, 0.0, 0.1):
        world = world_with_lift(np.random.default_rng(3), lift)
        assert world.value(world.candidate) / world.value(world.baseline) - 1 == pytest.approx(lift, abs=1e-9)


@pytest.mark.statistical
def test_guard_rarely_serves_a_weight_that_breaks_the_promise() -> None:
    """Seeded; true probability about .01 per run (bound .05), 40 runs, more than 6 violations: below 1e-4."""
    runs = [
        roll_out(
            world_with_lift(np.random.default_rng([i, 1]), -0.06),
            RULES,
            np.random.default_rng([i, 2]),
            decisions=40_000,
        )
        for i in range(40)
    ]
    assert sum(run.violated for run in runs) <= 6


@pytest.mark.statistical
def test_guard_raises_a_good_candidate_and_kills_a_bad_one() -> None:
    """Seeded; medians of 9 runs against bounds that lie a factor of 1.5 above the measured medians."""
    good, bad = [], []
    for i in range(9):
        for lift, into in ((0.10, good), (-0.10, bad)):
            world = world_with_lift(np.random.default_rng([i, 1]), lift)
            into.append(roll_out(world, RULES, np.random.default_rng([i, 2]), decisions=60_000))
    assert np.median([run.full or np.inf for run in good]) <= 20_000
    assert np.median([run.killed or np.inf for run in bad]) <= 40_000
