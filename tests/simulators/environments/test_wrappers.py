"""Delays, outages and drift around an environment do what they say."""

from __future__ import annotations

import numpy as np
import pytest

from decision.errors import FieldError
from simulators.environments.lts.env import LtsEnv, draw_users
from simulators.environments.wrappers import Delayed, Drifting, Outage

USERS = draw_users(np.random.default_rng(0), np.array([14.0]), 25)


def inside(choc: float = 14.0) -> LtsEnv:
    return LtsEnv(USERS.in_group(choc), horizon=20, noise=0.0)


def test_delayed_observations_are_those_of_before_and_rewards_of_now() -> None:
    plain, late = inside(), Delayed(inside(), 2)
    seen = [plain.reset(seed=1)[0]]
    first, _ = late.reset(seed=1)
    assert np.array_equal(first, seen[0])
    for step in range(8):
        action = np.full(25, step)
        observed, reward, *_ = plain.step(action)
        seen.append(observed)
        got, same, *_ = late.step(action)
        assert np.array_equal(got, seen[max(step + 1 - 2, 0)])
        assert np.array_equal(same, reward)


def test_outage_replaces_what_it_says() -> None:
    """Fails with probability below 1e-6: 500 draws of probability .3 within 5 standard errors."""
    broken, plain = Outage(inside(), 0.3, 0), inside()
    broken.reset(seed=1)
    plain.reset(seed=1)
    lost = 0
    for _ in range(20):
        _, reward, *_, info = broken.step(np.full(25, 29))
        known = plain.step(np.where(info["replaced"], 0, 29))[1]
        assert np.array_equal(reward, known)
        lost += int(info["replaced"].sum())
    assert abs(lost - 150) < 5 * np.sqrt(500 * 0.3 * 0.7)


def test_drift_moves_the_world_between_episodes_and_a_seed_starts_it_anew() -> None:
    env = Drifting(lambda episode: inside(14.0 + episode))
    totals = []
    for seed in (1, None, None, 1):
        env.reset(seed=seed)
        totals.append(float(env.step(np.full(25, 29))[1].mean()))
    assert totals[0] < totals[1] < totals[2]
    assert totals[3] == totals[0]


def test_impossible_disturbances_are_refused() -> None:
    with pytest.raises(FieldError, match="steps"):
        Delayed(inside(), 0)
    with pytest.raises(FieldError, match="probability"):
        Outage(inside(), 1.5, 0)
    with pytest.raises(FieldError, match="fallback"):
        Outage(inside(), 0.5, 30)
