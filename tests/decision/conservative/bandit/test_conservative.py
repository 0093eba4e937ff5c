from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decision.conservative.bandit.clucb import CLUCB
from decision.conservative.bandit.ridge import Ridge
from decision.conservative.bandit.squarecb import Budget, ConservativeSquareCB
from decision.conservative.bandit.stagewise_thompson import StagewiseThompson
from decision.exploration.squarecb import squarecb


def filled(rng: np.random.Generator, rows: int, dim: int, ridge: float = 2.0) -> tuple[Ridge, np.ndarray, np.ndarray]:
    x, y = rng.random((rows, dim)), rng.random(rows)
    state = Ridge.prior(dim, ridge)
    for row, reward in zip(x, y, strict=True):
        state = state.after(row, float(reward))
    return state, x, y


def test_ridge_is_the_closed_form_solution_with_its_determinant_and_width() -> None:
    state, x, y = filled(np.random.default_rng(1), 40, 4)
    v = 2.0 * np.eye(4) + x.T @ x
    np.testing.assert_allclose(state.estimate(), np.linalg.solve(v, x.T @ y), atol=1e-10)
    assert state.log_det == pytest.approx(np.linalg.slogdet(v)[1] - 4 * np.log(2.0))
    probe = np.array([1.0, -2.0, 0.5, 0.0])
    assert state.width(probe) == pytest.approx(np.sqrt(probe @ np.linalg.solve(v, probe)))


def test_the_ridge_prior_has_the_width_of_its_precision() -> None:
    prior = Ridge.prior(3, 4.0)
    assert prior.width(np.array([1.0, 0.0, 0.0])) == pytest.approx(0.5)
    assert prior.radius(noise=0.5, norm=3.0, delta=np.exp(-2.0)) == pytest.approx(0.5 * 2.0 + 2.0 * 3.0)


def test_clucb_explores_first_when_saved_rewards_pay_for_the_worst_case() -> None:
    rule = CLUCB(alpha=0.2, delta=0.05, norm=1.0)
    x = np.eye(2)
    state = rule.init(2)
    # The first explored reward is at least -radius (prior width 1), and the round owes 0.8 of the baseline's.
    worst = state.ridge.radius(noise=0.5, norm=1.0, delta=0.05)
    rounds = 0
    while not (chosen := rule.choose(state, x, baseline=1, baseline_reward=0.5)).explores:
        assert chosen.action == 1
        state = rule.update(state, chosen, x[1], 1.0, baseline_reward=0.5)
        rounds += 1
    assert rounds == int(np.ceil((worst + 0.8 * 0.5) / (0.2 * 0.5)))


def test_clucb_learns_nothing_from_the_baseline_and_pays_for_what_it_explores() -> None:
    rule = CLUCB(alpha=0.1)
    state = rule.init(2)._replace(saved=100.0)
    chosen = rule.choose(state, np.eye(2), baseline=1, baseline_reward=0.5)
    assert chosen.explores
    after = rule.update(state, chosen, np.array([1.0, 0.0]), 1.0, baseline_reward=0.5)
    assert after.saved == pytest.approx(100.0 - 0.45)
    np.testing.assert_allclose(after.explored, [1.0, 0.0])
    kept = rule.update(rule.init(2), chosen._replace(explores=False), np.eye(2)[1], 1.0, baseline_reward=0.5)
    assert kept.saved == pytest.approx(0.05)
    np.testing.assert_array_equal(kept.ridge.inverse, rule.init(2).ridge.inverse)


def test_conservative_squarecb_is_squarecb_once_the_savings_cover_its_error() -> None:
    rule = ConservativeSquareCB(regret=lambda m: 2.0, alpha=0.1, delta=0.05, scale=3.0)
    scores = np.array([0.2, 0.5, 0.4])
    error = np.sqrt(2.0 * 2.0 + 16.0 * np.log(2.0 / 0.05))
    pmf = squarecb(scores, np.array([0, 3]), gamma=3.0 * np.sqrt(3.0 / 2.0))
    needed = error + 0.9 * 0.4 - float(pmf @ scores)
    rich = rule.play(Budget(saved=needed + 1e-9), scores, baseline=2, baseline_reward=0.4)
    assert rich.explores
    np.testing.assert_allclose(rich.pmf, pmf)
    poor = rule.play(Budget(saved=needed - 1e-9), scores, baseline=2, baseline_reward=0.4)
    assert not poor.explores
    np.testing.assert_array_equal(poor.pmf, [0.0, 0.0, 1.0])
    spent = rule.after(Budget(saved=9.0), rich, baseline_reward=0.4)
    assert (spent.rounds, spent.predicted, spent.saved) == (1, rich.predicted, pytest.approx(9.0 - 0.36))
    assert rule.after(Budget(), poor, baseline_reward=0.4).saved == pytest.approx(0.04)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**31), alpha=st.floats(0.01, 0.9), reward=st.floats(0.0, 1.0))
def test_thompson_gives_up_no_more_than_alpha_of_a_round_while_nothing_is_known(
    seed: int, alpha: float, reward: float
) -> None:
    rng = np.random.default_rng(seed)
    means = rng.random(5)
    means[2] = reward
    rule = StagewiseThompson(alpha=alpha)
    x = rng.random((5, 3))
    state = Ridge.prior(3)
    pmf = rule.pmf(state, x, rng.normal(size=3), baseline=2, baseline_reward=reward)
    assert pmf.sum() == pytest.approx(1.0)
    if not rule.safe(state, x, baseline_reward=reward).any():
        assert pmf @ means >= (1.0 - alpha) * reward - 1e-12


def test_thompson_takes_the_best_sampled_action_among_the_safe_ones_only() -> None:
    state = Ridge.prior(2)
    for _ in range(4000):
        state = state.after(np.array([1.0, 0.0]), 0.8)
    rule = StagewiseThompson(alpha=0.1, scale=0.0)
    x = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    np.testing.assert_array_equal(rule.safe(state, x, baseline_reward=0.5), [1.0, 0.0, 0.0])
    np.testing.assert_array_equal(rule.pmf(state, x, np.zeros(2), baseline=1, baseline_reward=0.5), [1.0, 0.0, 0.0])
