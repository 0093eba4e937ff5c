"""Slates and trajectories against closed forms, brute force and a chain whose value is known."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from decision.errors import FieldError, SupportError
from decision.ope.sequential.marginalised import TransitionSums, fitted_q, marginalised
from decision.ope.sequential.slates import (
    cascade_dr_terms,
    cascade_terms,
    independent_terms,
    pseudo_inverse_terms,
    running_products,
    whole_terms,
)
from decision.ope.sequential.trajectories import (
    WeightedSums,
    logger_scales,
    pdis_terms,
    trajectory_dr_terms,
    trajectory_sums,
    weighted_pdis,
)

OFFSETS = np.array([0, 3, 4, 6])
WEIGHTS = np.array([2.0, 0.5, 3.0, 4.0, 0.0, 5.0])
REWARD = np.array([1.0, 2.0, 0.0, 3.0, 1.0, 1.0])


def test_slates_by_hand() -> None:
    assert running_products(WEIGHTS, OFFSETS).tolist() == [2.0, 1.0, 3.0, 4.0, 0.0, 0.0]
    assert whole_terms(WEIGHTS, REWARD, OFFSETS).tolist() == [9.0, 12.0, 0.0]
    assert cascade_terms(WEIGHTS, REWARD, OFFSETS).tolist() == [4.0, 12.0, 0.0]
    assert independent_terms(WEIGHTS, REWARD, OFFSETS).tolist() == [3.0, 12.0, 5.0]
    assert pseudo_inverse_terms(WEIGHTS, np.array([1.0, 2.0, 3.0]), OFFSETS).tolist() == [3.5, 8.0, 12.0]


def test_discounts_fall_step_by_step() -> None:
    assert pdis_terms(WEIGHTS, REWARD, OFFSETS, gamma=0.5).tolist() == [3.0, 12.0, 0.0]
    assert pdis_terms(WEIGHTS, REWARD, OFFSETS).tolist() == cascade_terms(WEIGHTS, REWARD, OFFSETS).tolist()


@pytest.mark.parametrize("reward_of", ["whole", "cascade", "independent", "additive"])
def test_each_slate_estimator_is_unbiased_under_its_assumption(reward_of: str) -> None:
    """Exact: the sum over all slates of their logged probability times the term is the policy's value."""
    p, pi = np.array([[0.5, 0.5], [0.2, 0.8]]), np.array([[0.9, 0.1], [0.6, 0.4]])
    value, found = 0.0, 0.0
    for slate in itertools.product(range(2), repeat=2):
        a, b = slate
        weights = np.array([pi[0, a] / p[0, a], pi[1, b] / p[1, b]])
        alone = [1.0 + a, 3.0 - b]
        rewards = {
            "whole": [1.0 + 2 * a * b, float(a == b)],
            "cascade": [alone[0], alone[1] * (1 + a)],
            "independent": alone,
            "additive": alone,
        }[reward_of]
        offsets, reward = np.array([0, 2]), np.array(rewards)
        term = {
            "whole": lambda w=weights, r=reward, o=offsets: whole_terms(w, r, o),
            "cascade": lambda w=weights, r=reward, o=offsets: cascade_terms(w, r, o),
            "independent": lambda w=weights, r=reward, o=offsets: independent_terms(w, r, o),
            "additive": lambda w=weights, r=reward, o=offsets: pseudo_inverse_terms(w, r.sum(keepdims=True), o),
        }[reward_of]()
        value += pi[0, a] * pi[1, b] * sum(rewards)
        found += p[0, a] * p[1, b] * float(term[0])
    assert found == pytest.approx(value)


def test_cascade_dr_needs_the_weights_or_the_model() -> None:
    rng = np.random.default_rng(0)
    no_model = cascade_dr_terms(WEIGHTS, REWARD, np.zeros(6), np.zeros(6), OFFSETS)
    np.testing.assert_allclose(no_model, cascade_terms(WEIGHTS, REWARD, OFFSETS))
    # With the model right and rewards without noise, the first step's value is all there is.
    value = rng.random(6)
    later = np.append(value[1:], 0.0)
    later[OFFSETS[1:] - 1] = 0.0
    terms = cascade_dr_terms(WEIGHTS, REWARD, REWARD + later, value, OFFSETS)
    np.testing.assert_allclose(terms, value[OFFSETS[:-1]])


# A chain of two states; action 1 moves to state 1, where everything is worth 1, with probability .8.
P_BEHAVE = np.array([[0.7, 0.3], [0.5, 0.5]])
P_TARGET = np.array([[0.2, 0.8], [0.9, 0.1]])
STEPS, GAMMA = 4, 0.9


def moves(state: int, action: int) -> float:
    return 0.8 if action == 1 else (0.1 if state == 0 else 0.6)


def true_value(policy: np.ndarray) -> float:
    share, value = np.array([0.75, 0.25]), 0.0
    for step in range(STEPS):
        value += GAMMA**step * share[1]
        to_one = sum(share[s] * policy[s, a] * moves(s, a) for s in range(2) for a in range(2))
        share = np.array([1 - to_one, to_one])
    return float(value)


def chain(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    state = np.empty((n, STEPS), dtype=np.int64)
    action = np.empty((n, STEPS), dtype=np.int64)
    here = (rng.random(n) < 0.25).astype(np.int64)
    table = np.array([[moves(s, a) for a in range(2)] for s in range(2)])
    for step in range(STEPS):
        state[:, step] = here
        action[:, step] = (rng.random(n) < P_BEHAVE[here, 1]).astype(np.int64)
        here = (rng.random(n) < table[here, action[:, step]]).astype(np.int64)
    reward = (state == 1).astype(float)
    return state.ravel(), action.ravel(), reward.ravel(), np.arange(n + 1) * STEPS


@pytest.mark.statistical
def test_every_trajectory_estimator_finds_the_value_of_the_chain() -> None:
    """Six estimates of 40,000 trajectories, each within 4.5 standard errors: one misses with probability 4e-5."""
    rng = np.random.default_rng(1)
    n, truth = 40_000, true_value(P_TARGET)
    state, action, reward, offsets = chain(n, rng)
    weight = P_TARGET / P_BEHAVE
    w = weight[state, action]
    plain = pdis_terms(w, reward, offsets, gamma=GAMMA)
    error = plain.std() / math.sqrt(n)
    assert abs(plain.mean() - truth) < 4.5 * error
    sums = TransitionSums.of(state, action, reward, offsets, states=2, actions=2, steps=STEPS)
    assert abs(marginalised(sums, weight, gamma=GAMMA) - truth) < 4.5 * error
    value, q = fitted_q(sums, P_TARGET, gamma=GAMMA)
    assert abs(value - truth) < 4.5 * error
    step = np.tile(np.arange(STEPS), n)
    expected, direct = q[step, state, action], (P_TARGET[state] * q[step, state]).sum(1)
    robust = trajectory_sums(trajectory_dr_terms(w, reward, expected, direct, offsets, gamma=GAMMA), w, offsets)
    found = robust.estimate(0.95)
    assert abs(found.value - truth) < 4.5 * robust.error
    assert robust.error < error
    group = rng.integers(256, size=n)
    weighted = weighted_pdis(WeightedSums.of(w, reward, offsets, group, steps=STEPS, groups=256), gamma=GAMMA)
    assert abs(weighted.value - truth) < 4.5 * (weighted.high - weighted.low) / 3.92
    assert weighted.high - weighted.low < 2 * 3.92 * error


def test_weighted_pdis_by_hand() -> None:
    group = np.arange(3)
    found = weighted_pdis(WeightedSums.of(WEIGHTS, REWARD, OFFSETS, group, steps=3, groups=3), gamma=0.5)
    # Weights by step, ended ones kept: 2, 4, 0; 1, 4, 0; 3, 4, 0. Rewards: 2 + 12 + 0; 2 + 0; 0.
    assert found.value == pytest.approx(14 / 6 + 0.5 * 2 / 5 + 0.0)
    rewards = np.array([[2.0, 12.0, 0.0], [2.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    weights = np.array([[2.0, 4.0, 0.0], [1.0, 4.0, 0.0], [3.0, 4.0, 0.0]])
    scale, over = np.array([1.0, 0.5, 0.25]), weights.sum(1)
    linear = (scale / over) @ (rewards - (rewards.sum(1) / over)[:, None] * weights)
    half = stats.t.ppf(0.975, 1) * math.sqrt((linear**2).sum() * 2)
    assert found.high - found.value == pytest.approx(half)


def test_shards_of_trajectories_merge_exactly() -> None:
    rng = np.random.default_rng(2)
    state, action, reward, offsets = chain(300, rng)
    reward = reward * rng.random(len(reward))
    w, group = (P_TARGET / P_BEHAVE)[state, action], rng.integers(16, size=300)
    cut = 120 * STEPS
    parts = [slice(0, 120), slice(120, 300)]
    flat = [slice(0, cut), slice(cut, None)]
    cuts = [np.arange(121) * STEPS, np.arange(181) * STEPS]

    def transitions(f: slice, o: np.ndarray) -> TransitionSums:
        return TransitionSums.of(state[f], action[f], reward[f], o, states=2, actions=2, steps=STEPS)

    whole = transitions(slice(None), offsets)
    merged = transitions(flat[0], cuts[0]) + transitions(flat[1], cuts[1])
    assert fitted_q(merged, P_TARGET)[0] == fitted_q(whole, P_TARGET)[0]
    assert marginalised(merged, P_TARGET / P_BEHAVE) == marginalised(whole, P_TARGET / P_BEHAVE)
    weighted = [
        WeightedSums.of(w[f], reward[f], o, group[p], steps=STEPS, groups=16)
        for f, o, p in zip(flat, cuts, parts, strict=True)
    ]
    whole_weighted = WeightedSums.of(w, reward, offsets, group, steps=STEPS, groups=16)
    assert weighted_pdis(weighted[0] + weighted[1]) == weighted_pdis(whole_weighted)


def test_bad_input_is_named() -> None:
    codes = np.zeros(6, dtype=np.int64)
    for call, field in (
        (lambda: running_products(-WEIGHTS, OFFSETS), "weights"),
        (lambda: pdis_terms(WEIGHTS, REWARD, OFFSETS, gamma=1.1), "gamma"),
        (lambda: WeightedSums.of(WEIGHTS, REWARD, OFFSETS, codes[:3], steps=2), "steps"),
        (lambda: TransitionSums.of(codes + 2, codes, REWARD, OFFSETS, states=2, actions=2, steps=3), "state"),
        (lambda: TransitionSums.of(codes, codes, REWARD, OFFSETS, states=2, actions=2, steps=2), "steps"),
        (lambda: TransitionSums.of(codes, codes, REWARD, OFFSETS, states=10**7, actions=2, steps=2), "states"),
    ):
        with pytest.raises(FieldError) as caught:
            call()
        assert caught.value.field == field
    nothing = WeightedSums.of(np.zeros(6), REWARD, OFFSETS, codes[:3], steps=3, groups=2)
    with pytest.raises(SupportError, match="step 0"):
        weighted_pdis(nothing)


def test_a_logger_that_hardly_agrees_does_not_outweigh_one_that_does() -> None:
    """Half of the log is uniform over ten actions, half nearly always takes another one; the policy takes the first."""
    rng, n = np.random.default_rng(3), 4_000
    logger = np.repeat([0, 1], n // 2)
    likely = np.where(logger == 0, 0.1, 0.005)
    agreed = rng.random(n) < likely
    weights, reward = np.where(agreed, 1.0 / likely, 0.0), np.where(agreed, rng.normal(3.0, 1.0, n), 9.0)
    offsets, group = np.arange(n + 1), np.arange(n) % 50
    plain = weighted_pdis(WeightedSums.of(weights, reward, offsets, group, steps=1))
    scaled = weights * logger_scales(weights, logger)
    better = weighted_pdis(WeightedSums.of(scaled, reward, offsets, group, steps=1))
    assert better.low < 3.0 < better.high
    assert better.ess > 4.0 * plain.ess
    assert better.high - better.low < 0.7 * (plain.high - plain.low)


def test_one_logger_is_left_as_it_is() -> None:
    weights = np.random.default_rng(0).exponential(1.0, 50)
    assert logger_scales(weights, np.zeros(50, np.int64)) == pytest.approx(1.0)
