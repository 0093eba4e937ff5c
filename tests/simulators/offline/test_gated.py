"""Steps behind a proof: what is taken, what never is, and who proves it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from scipy import stats

from simulators.learned.trajectories import Trajectories, catalogue_of, scale_of
from simulators.offline.gated import (
    ALPHA,
    BETAS,
    FEWEST,
    FEWEST_DECISIONS,
    apart_of,
    can_prove,
    climbed,
    imitated_of,
    lower_bound,
)
from simulators.offline.weights import weights_of
from simulators.trainers.clone import train
from simulators.trainers.contract import Plan, Taught


def steps_of(play: Callable[[float, int], Any], resolution: float = 0.0):
    """Return what is climbed where a policy is no more than its weight."""
    return climbed(cast(Any, lambda beta: beta), cast(Any, play), resolution, 0)


def test_a_lower_bound_is_that_of_the_paired_test() -> None:
    gain = np.random.default_rng(0).normal(0.3, 1.0, 37)
    wanted = stats.ttest_1samp(gain, 0.0, alternative="greater").confidence_interval(0.99).low
    assert lower_bound(gain, 0.01) == pytest.approx(wanted)
    assert lower_bound(gain[:1], 0.01) == -np.inf


def test_steps_are_taken_as_long_as_each_is_better_than_the_one_in_place() -> None:
    worth = {0.0: 0.0, 1.0: 1.0, 2.0: 0.9, 3.0: 1.1, 4.5: 1.0, 6.0: 2.0, 8.0: 1.9}
    noise = np.random.default_rng(1).normal(0.0, 0.01, (len(BETAS), 2, 50))
    asked: list[int] = []

    def play(policy: float, number: int) -> Any:
        asked.append(number)
        return worth[policy] + noise[number, int(policy > 0.0)]

    policy, steps = steps_of(play)
    assert policy == 6.0
    assert [step.beta for step in steps if step.taken] == [1.0, 3.0, 6.0]
    assert steps[1].gain == pytest.approx(-0.1, abs=0.01)
    assert steps[4].believed == pytest.approx(2.0, abs=0.01)
    assert asked == [number for number in range(len(BETAS)) for _ in range(2)]  # both of a pair meet the same noise


def test_a_gain_that_the_judge_cannot_tell_from_its_own_error_proves_nothing() -> None:
    policy, steps = steps_of(lambda policy, number: np.full(50, 0.1 * policy) + 1e-6 * np.arange(50), resolution=0.12)
    assert [step.taken for step in steps] == [False, True, False, True, True, True]  # gains of .1, .2, .1, .25, ...
    assert all(step.low > 0.0 for step in steps)
    assert policy == 8.0


def test_where_no_step_is_better_one_is_taken_at_most_as_often_as_alpha_says() -> None:
    """1,000 nights of 30 users: the share of nights with a step has a standard error of .007; .08 is four beyond."""
    rng, nights = np.random.default_rng(2), 1_000
    wrong = 0
    for _ in range(nights):
        _, steps = steps_of(lambda policy, number: rng.normal(0.0, 1.0, 30))
        wrong += any(step.taken for step in steps)
    assert wrong / nights <= ALPHA + 0.03


def test_who_proves_a_step_is_a_quarter_apart_from_the_last_judges() -> None:
    others = np.arange(0, 400, 4)
    found = apart_of(400, others, 7)
    assert (len(found), len(np.intersect1d(found, others))) == (100, 0)
    assert found.tolist() == apart_of(400, others, 7).tolist() != apart_of(400, others, 8).tolist()
    assert len(apart_of(10_000, others, 7)) == 400


def test_only_users_who_are_imitated_prove_a_step() -> None:
    assert imitated_of(np.full(50, 1 / 50)).tolist() == list(range(50))
    weights = np.r_[np.full(10, 0.09), np.full(40, 0.0025)]
    assert imitated_of(weights).tolist() == list(range(10))


def log_of(seed: int, *, users: int = 400, paid: float = 1.0, versions: bool = False) -> Trajectories:
    """Return a log of a world without state: action c pays `paid` more than a and b. A tenth is of a better version."""
    rng, shape = np.random.default_rng(seed), (users, 12)
    better = np.arange(users) >= 0.9 * users
    chances = np.where(better[:, None], [0.1, 0.1, 0.8], [0.4, 0.4, 0.2]) if versions else np.full((users, 3), 1 / 3)
    actions = (rng.random(shape)[..., None] > chances.cumsum(axis=1)[:, None, :]).sum(axis=2).clip(max=2)
    rewards = (paid * (actions == 2) + rng.normal(0.0, 0.5, shape)).astype(np.float32)
    drawn = np.take_along_axis(chances, actions, axis=1).astype(np.float32)
    catalogue = catalogue_of(["a", "b", "c"], np.eye(3, dtype=np.float32), actions)
    drew = np.repeat(better[:, None].astype(np.int64), 12, axis=1) if versions else None
    return Trajectories(
        actions, rewards, drawn, catalogue, scale_of(rewards), versions=drew, names=("1", "2") if versions else ()
    )


def taught(log: Trajectories, seed: int) -> Taught:
    held_out = np.random.default_rng(seed).permutation(len(log))[: len(log) // 4]
    return train(log, cast(Any, SimpleNamespace(apart=held_out)), Plan(gated="always", effort=0.1), seed)


def chance_of_c(found: Taught) -> float:
    with torch.no_grad():
        logits, _ = found.policy.step(torch.zeros(1, found.view.width), found.policy.start(1))
    return float(torch.softmax(logits, dim=-1)[0, found.offered.tolist().index(2)])


@pytest.mark.parametrize("seed", [0, 1])
def test_a_critic_that_is_right_is_followed(seed: int) -> None:
    found = taught(log_of(seed), seed)
    assert found.numbers["users_apart"] == 100
    assert found.numbers["steps_taken"] >= 1
    assert found.numbers["gain_low_at_1"] > 0.0
    assert found.numbers["beta"] >= 1.0
    assert chance_of_c(found) > 0.5


def test_where_nothing_is_to_be_gained_the_plain_clone_of_all_users_is_left() -> None:
    """With a probability of .95 by the bound; seeded."""
    log = log_of(3, paid=0.0)
    found = taught(log, 3)
    assert found.numbers["steps_taken"] == 0
    assert "beta" not in found.numbers
    assert chance_of_c(found) == pytest.approx(1 / 3, abs=0.1)


def test_too_few_imitated_users_prove_nothing() -> None:
    log = log_of(4, users=200, versions=True)
    assert len(imitated_of(weights_of(log, "pw"))) < 4 * FEWEST
    found = taught(log, 4)
    assert found.numbers["users_apart"] < FEWEST
    assert found.numbers["steps_taken"] == 0
    assert not any(name.startswith("gain") for name in found.numbers)


def test_too_few_decisions_prove_nothing() -> None:
    log = log_of(5, users=4 * FEWEST_DECISIONS // 12)
    assert len(log) // 4 >= FEWEST
    assert not can_prove(log.take(np.arange(len(log) // 4)))
    assert can_prove(log.take(np.arange(len(log) // 4 + 1)))


def test_a_unit_changes_no_step() -> None:
    log = log_of(6, users=600)
    other = replace(log, rewards=1_000.0 * log.rewards - 7.0)
    one, same = (taught(each, 6).numbers for each in (log, replace(other, scale=scale_of(other.rewards))))
    assert one["steps_taken"] == same["steps_taken"] >= 1
    assert same["gain_at_1"] == pytest.approx(1_000.0 * one["gain_at_1"], rel=0.02)
