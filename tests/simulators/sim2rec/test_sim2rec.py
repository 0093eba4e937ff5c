"""The student, PPO and identification on long-term satisfaction: what they see, that they learn, that they resume."""

from __future__ import annotations

import inspect
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from decision.errors import FieldError
from simulators.environments.lts.env import LtsEnv, draw_users
from simulators.environments.lts.planner import plan, returns_of_constants, returns_of_plan
from simulators.environments.lts.tasks import task
from simulators.sim2rec import ppo_checkpoint
from simulators.sim2rec.checkpoint import restore, save
from simulators.sim2rec.identification import returns_of_identification
from simulators.sim2rec.network import ContextPolicy, arrays_of, load_arrays
from simulators.sim2rec.ppo import PpoRecipe, begin, returns_of_actor, train
from simulators.sim2rec.ppo import _advantages as advantages_of
from simulators.sim2rec.student import Recipe, beginner, labelled_episodes, lies_of, teach
from simulators.sim2rec.views import GroupMean, View, returns_of_policy

SMALL = Recipe(iterations=4, users=28, kept=2, batches=3, batch=14)
AT_14 = np.array([14.0])


def test_lies_are_bounded_and_half_of_the_users_tell_one_for_good() -> None:
    """Of 400 users 150 to 250 lie for good, but for a chance of 1 in 10^6."""
    lies = lies_of(400, 0.6, np.random.default_rng(0))
    assert np.abs(lies).max() <= 0.6
    assert 150 < (np.ptp(lies, axis=0) == 0.0).sum() < 250


def test_lies_change_what_the_student_sees_of_rewards_and_nothing_else() -> None:
    view, users = View(), draw_users(np.random.default_rng(1), AT_14, 20)
    policy = ContextPolicy(view.width, seed=0)

    def seen(lies: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        return labelled_episodes(policy, view, users, np.random.default_rng(2), 0.0, 0.1, lies)

    (honest, labels), (same, _), (lied, _) = seen(None), seen(np.zeros((140, 20))), seen(np.full((140, 20), 0.5))
    assert np.array_equal(honest, same)
    assert np.array_equal(lied[:, 1, [0, 2, 3]], honest[:, 1, [0, 2, 3]])
    assert np.allclose(lied[:, 1, 1], honest[:, 1, 1] + 0.5, rtol=0.0, atol=1e-5)
    assert labels.shape == (20, 140)


@pytest.mark.parametrize("lies", [-0.1, 10.0, float("nan")])
def test_lies_outside_their_range_are_refused(lies: float) -> None:
    with pytest.raises(FieldError, match=r"recipe\.lies"):
        Recipe(lies=lies)


def test_views_take_nothing_privileged() -> None:
    # A view is handed observations, actions and groups; users, with their parameters and exposure, never reach it.
    for function in (View.fixed, View.inputs, GroupMean.__call__):
        assert not {"users", "env", "npe", "memory", "sensitivity"} & set(inspect.signature(function).parameters)


@given(st.booleans(), st.booleans(), st.integers(1, 20), st.integers(0, 2**31))
@settings(max_examples=20, deadline=None)
def test_inputs_are_as_wide_as_the_view_says(context: bool, embedded: bool, users: int, seed: int) -> None:
    view = View(context, GroupMean() if embedded else None)
    env = LtsEnv(draw_users(np.random.default_rng(seed), np.array([6.0, 20.0]), users))
    observed, _ = env.reset(seed=seed)
    fixed = view.fixed(observed, env.users.group)
    inputs = view.inputs(observed, np.zeros(2 * users, np.int64), fixed)
    assert inputs.shape == (2 * users, view.width)
    assert inputs.dtype == np.float32
    assert np.isfinite(inputs).all()


def test_without_a_context_or_group_nothing_tells_the_group_before_the_first_reward() -> None:
    view = View(context=False)
    inputs = []
    for choc in (6.0, 21.0):
        env = LtsEnv(draw_users(np.random.default_rng(0), np.array([choc]), 5))
        observed, _ = env.reset(seed=0)
        inputs.append(view.inputs(observed, np.zeros(5, np.int64), view.fixed(observed, env.users.group)))
    assert np.array_equal(*inputs)


def test_policy_step_by_step_is_the_policy_over_the_whole_sequence() -> None:
    policy = ContextPolicy(4, 3, seed=1)
    inputs = torch.randn(5, 9, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole, last = policy(inputs)
        state = policy.start(5)
        for time in range(9):
            outputs, state = policy.step(inputs[:, time], state)
            assert torch.allclose(outputs, whole[:, time], atol=1e-5)
    assert torch.allclose(state, last, atol=1e-5)


def test_policy_without_memory_forgets() -> None:
    policy = ContextPolicy(2, hidden=0)
    inputs = torch.randn(1, 6, 2, generator=torch.Generator().manual_seed(0))
    changed = inputs.clone()
    changed[:, :5] = 0.0
    with torch.no_grad():
        assert torch.equal(policy(inputs)[0][:, 5], policy(changed)[0][:, 5])


def test_weights_go_out_and_in_and_foreign_ones_are_refused() -> None:
    policy, other = ContextPolicy(4, seed=1), ContextPolicy(4, seed=2)
    load_arrays(other, arrays_of(policy))
    assert all(np.array_equal(value, arrays_of(policy)[name]) for name, value in arrays_of(other).items())
    with pytest.raises(FieldError, match="arrays"):
        load_arrays(ContextPolicy(5), arrays_of(policy))


def test_training_resumed_from_bytes_ends_where_it_would_have() -> None:
    view, chocs = View(embedding=GroupMean()), task("3").chocs
    straight = teach(beginner(view, SMALL, 5), view, chocs, SMALL)
    half = teach(beginner(view, SMALL, 5), view, chocs, SMALL, until=2)
    resumed = teach(restore(save(half), view, SMALL), view, chocs, SMALL)
    assert resumed.losses == straight.losses
    assert resumed.user_steps == straight.user_steps
    for part in ("policy", "average"):
        left, right = arrays_of(getattr(resumed, part)), arrays_of(getattr(straight, part))
        assert all(np.array_equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x05\x06" + b"\0" * 18])
def test_what_is_no_checkpoint_is_refused(content: bytes) -> None:
    with pytest.raises(FieldError, match="checkpoint"):
        restore(content, View(), SMALL)


def test_checkpoint_of_another_view_is_refused() -> None:
    with pytest.raises(FieldError, match="arrays"):
        restore(save(beginner(View(), SMALL, 0)), View(context=False), SMALL)


def test_student_taught_in_one_group_learns_to_beat_every_constant_there() -> None:
    """Seeded, so the same on every run of one torch version."""
    recipe = Recipe(iterations=12, users=196, batches=16, batch=48)
    view, users = View(context=False), draw_users(np.random.default_rng(1), AT_14, 300)
    done = teach(beginner(view, recipe, 0), view, AT_14, recipe)
    assert done.user_steps == 12 * 196 * 140
    reached = returns_of_policy(done.average, view, users, 2, noise=0.01).mean()
    assert returns_of_constants(users).mean(axis=1).max() < reached < returns_of_plan(users, plan(users)).mean()


def test_identification_with_the_right_prior_is_nearly_the_oracle() -> None:
    """Seeded, so the same on every run."""
    users = draw_users(np.random.default_rng(1), AT_14, 100)
    share = (
        returns_of_identification(users, AT_14, 0, particles=500).mean() / returns_of_plan(users, plan(users)).mean()
    )
    assert 0.97 < share <= 1.001


def test_generalised_advantages_are_returns_less_values_without_smoothing() -> None:
    rewards = torch.tensor([[1.0, 2.0, 4.0]])
    values = torch.tensor([[0.5, 0.5, 0.5]])
    recipe = replace(PpoRecipe(), gamma=0.5, smoothing=1.0)
    assert torch.allclose(advantages_of(rewards, values, recipe), torch.tensor([[1 + 1 + 1 - 0.5, 3.5, 3.5]]))


def test_ppo_is_repeatable_and_counts_its_steps() -> None:
    recipe = PpoRecipe(updates=2, users=14, epochs=1)
    view = View(embedding=GroupMean())
    one, other = (train(begin(view, recipe, 3), view, task("3").chocs, recipe) for _ in range(2))
    assert one.user_steps == 2 * 14 * 140
    assert one.curve == other.curve
    users = draw_users(np.random.default_rng(0), AT_14, 10)
    assert np.array_equal(returns_of_actor(one, view, users, 1), returns_of_actor(other, view, users, 1))


def test_ppo_resumed_from_bytes_ends_where_it_would_have() -> None:
    recipe, view = PpoRecipe(updates=4, users=14, epochs=1), View(embedding=GroupMean())
    straight = train(begin(view, recipe, 3), view, AT_14, recipe)
    half = begin(view, recipe, 3)
    train(half, view, AT_14, recipe, until=2)
    resumed = train(ppo_checkpoint.restore(ppo_checkpoint.save(half), view, recipe), view, AT_14, recipe)
    assert resumed.curve == straight.curve
    for part in ("policy", "value"):
        left, right = arrays_of(getattr(resumed, part)), arrays_of(getattr(straight, part))
        assert all(np.array_equal(left[name], right[name]) for name in left)
    assert torch.equal(resumed.log_std, straight.log_std)


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x05\x06" + b"\0" * 18])
def test_what_is_no_checkpoint_of_ppo_is_refused(content: bytes) -> None:
    with pytest.raises(FieldError, match="checkpoint"):
        ppo_checkpoint.restore(content, View(), PpoRecipe())


def test_ppo_improves_on_where_it_began() -> None:
    """Seeded, so the same on every run of one torch version."""
    recipe = PpoRecipe(updates=10, users=84)
    actor = train(begin(View(), recipe, 0), View(), AT_14, recipe)
    assert actor.curve[-1][1] > actor.curve[0][1] + 5.0


@pytest.mark.parametrize(("name", "value"), [("iterations", 0), ("batch", 0)])
def test_impossible_recipes_are_refused(name: str, value: int) -> None:
    with pytest.raises(FieldError, match=name):
        replace(Recipe(), **{name: value})
