"""What every vector environment of `simulators` keeps. Each check takes a function that makes a fresh one."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium.vector import VectorEnv

from decision.errors import FieldError


def actions_of(env, seed: int, steps: int) -> list:
    env.action_space.seed(seed)
    return [env.action_space.sample() for _ in range(steps)]


def play(env, seed: int, actions: list) -> list[tuple]:
    observed, _ = env.reset(seed=seed)
    return [(observed,), *[env.step(action)[:4] for action in actions]]


def check_is_a_vector_environment(make) -> None:
    env = make()
    assert isinstance(env, VectorEnv)
    assert env.observation_space.shape[0] == env.num_envs == env.action_space.shape[0]
    assert "autoreset_mode" in env.metadata


def check_observations_lie_in_the_space_and_outcomes_have_shapes(make) -> None:
    env = make()
    observed, info = env.reset(seed=3)
    assert env.observation_space.contains(observed)
    assert isinstance(info, dict)
    for action in actions_of(env, 4, 5):
        observed, reward, terminated, truncated, _ = env.step(action)
        assert env.observation_space.contains(observed)
        assert np.isfinite(observed).all()
        assert np.isfinite(reward).all()
        for values in (reward, terminated, truncated):
            assert values.shape == (env.num_envs,)
        assert terminated.dtype == truncated.dtype == np.bool_


def check_the_same_seed_gives_the_same_episode(make) -> None:
    actions = actions_of(make(), 5, 8)
    for one, other in zip(play(make(), 6, actions), play(make(), 6, actions), strict=True):
        for left, right in zip(one, other, strict=True):
            assert np.array_equal(left, right)


def check_another_seed_gives_another_episode(make) -> None:
    actions = actions_of(make(), 5, 8)
    pairs = zip(play(make(), 6, actions), play(make(), 7, actions), strict=True)
    assert any(not np.array_equal(one[0], other[0]) for one, other in pairs)


def check_what_was_returned_stays_as_it_was(make) -> None:
    env = make()
    actions = actions_of(env, 8, 4)
    kept = play(env, 9, actions)
    copies = [tuple(values.copy() for values in outcome) for outcome in kept]
    play(env, 10, actions)
    for outcome, copied in zip(kept, copies, strict=True):
        assert all(np.array_equal(left, right) for left, right in zip(outcome, copied, strict=True))


def check_reset_starts_the_episode_again(make) -> None:
    env = make()
    actions = actions_of(env, 11, 6)
    first = play(env, 12, actions)
    second = play(env, 12, actions)
    for one, other in zip(first, second, strict=True):
        assert all(np.array_equal(left, right) for left, right in zip(one, other, strict=True))


def check_an_action_of_the_wrong_shape_is_refused(make) -> None:
    env = make()
    env.reset(seed=1)
    action = env.action_space.sample()
    with pytest.raises(FieldError, match="actions"):
        env.step(np.concatenate([action, action]))


def check_an_episode_ends(make) -> None:
    env = make()
    env.reset(seed=2)
    over = np.zeros(env.num_envs, np.bool_)
    for action in actions_of(env, 13, 400):
        _, _, terminated, truncated, _ = env.step(action)
        over |= terminated | truncated
        if over.all():
            return
    pytest.fail("400 steps and some episodes are not over")


CHECKS = [value for name, value in sorted(globals().items()) if name.startswith("check_")]
