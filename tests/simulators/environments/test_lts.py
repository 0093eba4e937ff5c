"""Long-term satisfaction: known values, and RecSim's own user model step by step."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from decision.errors import FieldError
from simulators.environments.lts.env import DOCUMENTS, LtsEnv, LtsUsers, document_of, draw_users, users_on_grid
from simulators.environments.lts.planner import documents, plan, returns_of_constants, returns_of_plan
from simulators.environments.lts.tasks import ALPHAS, TARGET, task
from tests.parts import require

GRID = users_on_grid(32, TARGET)


def make() -> LtsEnv:
    return LtsEnv(draw_users(np.random.default_rng(0), np.array([6.0, 21.0]), 20), horizon=30)


def returns_in(env: LtsEnv, choose) -> float:
    env.reset(seed=0)
    total = np.zeros(env.num_envs)
    for time in range(env.horizon):
        total += env.step(choose(time))[1]
    return float(total.mean())


@pytest.mark.parametrize(("document", "known"), [(0, 441.725), (12, 676.481), (15, 644.968), (29, 442.985)])
def test_environment_gives_the_known_returns_of_constant_documents(document: int, known: float) -> None:
    env = LtsEnv(GRID, noise=0.0)
    constant = np.full(len(GRID), document)
    assert returns_in(env, lambda _: constant) == pytest.approx(known, abs=1e-2)
    assert returns_of_constants(GRID)[document].mean() == pytest.approx(known, abs=1e-2)


def test_environment_gives_the_known_return_of_alternating_extremes() -> None:
    env = LtsEnv(GRID, noise=0.0)
    assert returns_in(env, lambda time: np.full(len(GRID), 29 * (time % 2))) == pytest.approx(712.335, abs=1e-2)


def test_plan_has_the_known_value_and_earns_it_in_the_environment() -> None:
    planned = plan(GRID)
    assert returns_of_plan(GRID, planned).mean() == pytest.approx(781.10, abs=1e-2)
    assert planned.value.mean() == pytest.approx(781.11, abs=1.5e-2)  # 801 nodes; these are 201
    env = LtsEnv(GRID, noise=0.0)
    assert returns_in(env, lambda time: documents(planned.advantage_at(time, env.npe) > 0)) == pytest.approx(
        781.10, abs=1e-2
    )


@pytest.mark.parametrize(("choc", "known", "within"), [(9.0, 766.6, 0.05), (21.0, 777.9, 0.05), (6.0, 602.1, 0.5)])
def test_plans_for_the_wrong_group_have_their_known_returns(choc: float, known: float, within: float) -> None:
    # At mu 6 many users sit where both documents are worth the same, and the grid decides for them.
    assert returns_of_plan(GRID, plan(GRID.in_group(choc))).mean() == pytest.approx(known, abs=within)


@pytest.mark.parametrize(("choc", "known"), [(11.0, 674.7), (10.0, 667.9), (9.0, 657.0)])
def test_best_constant_of_a_wrong_group_has_its_known_return(choc: float, known: float) -> None:
    best = returns_of_constants(GRID.in_group(choc)).mean(axis=1).argmax()
    assert returns_of_constants(GRID)[best].mean() == pytest.approx(known, abs=0.05)


def test_no_constant_beats_the_plan_of_any_user() -> None:
    # The plan has two documents only; a user for whom one in between is best at all times loses under 1.5 of 700.
    assert (returns_of_constants(GRID).max(axis=0) <= plan(GRID).value + 1.5).all()


def test_satisfaction_rises_without_clickbait() -> None:
    env = LtsEnv(GRID, noise=0.0)
    env.reset(seed=0)
    rewards = np.array([env.step(np.zeros(len(GRID), np.int64))[1] for _ in range(20)])
    assert (np.diff(rewards, axis=0) >= -1e-5).all()


def test_context_is_drawn_once_an_episode_around_the_group() -> None:
    """Fails with probability below 1e-6: the mean of 10,000 draws of N(14, 3) within 5 standard errors."""
    env = LtsEnv(draw_users(np.random.default_rng(1), np.array([14.0]), 10_000))
    first, _ = env.reset(seed=2)
    second = env.step(np.zeros(10_000, np.int64))[0]
    assert np.array_equal(first[:, 0], second[:, 0])
    assert abs(first[:, 0].mean() - 14.0) < 5 * 3.0 / 100.0
    assert not np.array_equal(env.reset()[0][:, 0], first[:, 0])


def test_reward_noise_is_the_one_asked_for() -> None:
    """Fails with probability below 1e-6: a standard deviation of 50,000 draws within 2%."""
    users = draw_users(np.random.default_rng(1), np.array([14.0]), 50_000)
    noisy, exact = LtsEnv(users, noise=0.5), LtsEnv(users, noise=0.0)
    noisy.reset(seed=0)
    exact.reset(seed=0)
    action = np.full(50_000, 20)
    assert np.std(noisy.step(action)[1] - exact.step(action)[1]) == pytest.approx(0.5, rel=0.02)


@pytest.mark.parametrize("name", ALPHAS)
def test_no_training_group_lies_within_alpha_of_the_target(name: str) -> None:
    chocs = task(name).chocs
    assert (np.abs(chocs - TARGET) > ALPHAS[name]).all()
    assert task(name).wrong == TARGET - ALPHAS[name] - 1
    assert {6.0, 21.0} <= set(chocs)


def test_kale_shift_moves_the_users_within_its_width() -> None:
    users = draw_users(np.random.default_rng(0), task("3", kale_shift=2.0).chocs, 500, kale_shift=2.0)
    assert 1.9 < np.abs(users.kale - 4.0).max() <= 2.0
    assert (draw_users(np.random.default_rng(0), task("3").chocs, 5).kale == 4.0).all()


def test_continuous_levels_map_to_documents_as_the_authors_have_it() -> None:
    levels = np.array([-1.0, -0.999, 0.0, 0.999, 1.0, 7.0], np.float32)
    assert document_of(levels).tolist() == [0, 0, 14, 28, 29, 29]


@pytest.mark.parametrize("action", [np.full(40, 30), np.full(40, -1), np.zeros(40)])
def test_what_is_no_document_is_refused(action) -> None:
    env = make()
    env.reset(seed=0)
    with pytest.raises(FieldError, match="actions"):
        env.step(action)


def test_impossible_users_are_refused() -> None:
    one = np.ones(1, np.float32)
    with pytest.raises(FieldError, match=r"users\.memory"):
        LtsUsers(one, one, one, one, np.zeros(1, dtype=np.int64))
    with pytest.raises(FieldError, match="kale_shift"):
        draw_users(np.random.default_rng(0), np.array([14.0]), 1, kale_shift=4.0)


def test_trajectories_equal_those_of_recsim() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        recsim = pytest.importorskip("recsim.environments.long_term_satisfaction", reason="recsim-no-tf")
    users = draw_users(np.random.default_rng(4), np.array([6.0, 14.0, 21.0]), 4)
    env = LtsEnv(users, noise=0.0)
    env.reset(seed=0)
    actions = np.random.default_rng(5).integers(0, DOCUMENTS, (60, len(users)))
    ours = np.array([env.step(action)[1] for action in actions])
    for user in range(len(users)):
        theirs = recsim_episode(recsim, users, user, actions[:, user])
        assert ours[:, user] == pytest.approx(theirs, rel=1e-5)


def recsim_episode(recsim, users: LtsUsers, user: int, actions) -> list[float]:
    """RecSim's own user model; its engagement is the exponential of ours, and its noise is off."""
    memory = float(users.memory[user])
    state = recsim.LTSUserState(
        memory_discount=memory,
        sensitivity=float(users.sensitivity[user]),
        innovation_stddev=0.0,
        choc_mean=float(users.choc[user]),
        choc_stddev=0.0,
        kale_mean=float(users.kale[user]),
        kale_stddev=0.0,
        net_positive_exposure=0.5 / (1.0 - memory),
        time_budget=1000,
    )
    model = recsim.LTSUserModel(1, user_state_ctor=recsim.LTSUserState, response_model_ctor=recsim.LTSResponse)
    model._user_state = state
    rewards = []
    for action in actions:
        document = recsim.LTSDocument(0, action / DOCUMENTS)
        responses = model.simulate_response([document])
        rewards.append(float(np.log(responses[0].engagement)))
        model.update_state([document], responses)
    return rewards


def test_reference_simulator_is_installed_where_everything_must_be() -> None:
    import importlib.util

    require(importlib.util.find_spec("recsim"), "recsim-no-tf is not installed")
