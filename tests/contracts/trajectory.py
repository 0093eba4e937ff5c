"""What every estimator of slates or trajectories keeps, on a log of ragged trajectories through three states."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any, NamedTuple

import numpy as np
import pytest

from decision.batch import Floats, Ints
from decision.errors import SupportError
from decision.ope.sequential.marginalised import TransitionSums
from decision.ope.sequential.trajectories import trajectory_sums

STATES, ACTIONS, STEPS = 3, 2, 4
LOGGING = np.array([[0.7, 0.3], [0.5, 0.5], [0.2, 0.8]])
POLICY = np.array([[0.4, 0.6], [0.9, 0.1], [0.5, 0.5]])


@dataclass(frozen=True)
class Steps:
    """n trajectories, flat over their m steps, with a model that is off."""

    state: Ints
    action: Ints
    reward: Floats
    expected: Floats
    offsets: Ints
    group: Ints

    def weights(self, policy: Floats) -> Floats:
        """Return [m] weights of the steps under `policy` ([S, A])."""
        return (policy / LOGGING)[self.state, self.action]

    def take(self, rows: Ints) -> Steps:
        """Return the trajectories numbered `rows`."""
        sizes = np.diff(self.offsets)[rows]
        at = np.concatenate([np.zeros(0, np.int64), *(np.arange(*self.offsets[row : row + 2]) for row in rows)])
        offsets = np.concatenate([[0], sizes.cumsum()]).astype(np.int64)
        columns = (column[at] for column in (self.state, self.action, self.reward, self.expected))
        return Steps(*columns, offsets, self.group[rows])


class Trajectory(NamedTuple):
    """An estimator: `sums(log, policy)` adds with `+`, `value(sums, policy)` is the estimate.

    `by_table` reads the policy's probabilities, and not the shares in which the log happens to hold its actions.
    """

    sums: Callable[[Steps, Floats], Any]
    value: Callable[[Any, Floats], float]
    by_table: bool = False


def mean(terms: Callable[[Steps, Floats], Floats]) -> Trajectory:
    """Return the estimator that is the mean of [n] terms of the log under [m] weights."""
    return Trajectory(
        lambda log, policy: trajectory_sums(terms(log, log.weights(policy)), log.weights(policy), log.offsets),
        lambda sums, policy: sums.mean,
    )


def transitions(log: Steps, policy: Floats) -> TransitionSums:
    """Return the table of transitions."""
    return TransitionSums.of(
        log.state, log.action, log.reward, log.offsets, states=STATES, actions=ACTIONS, steps=STEPS
    )


def log_of(n: int, seed: int) -> Steps:
    """Return `n` trajectories of one to four steps; rewards depend on state and action, with noise."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, STEPS + 1, size=n)
    m = int(sizes.sum())
    state = rng.integers(STATES, size=m)
    action = (rng.random(m) < LOGGING[state, 1]).astype(np.int64)
    reward = state + 2.0 * action + rng.normal(size=m)
    offsets = np.concatenate([[0], sizes.cumsum()]).astype(np.int64)
    return Steps(state, action, reward, 0.5 * state, offsets, rng.integers(32, size=n))


def check_shards_add_up_to_the_same_bits(estimator: Trajectory) -> None:
    log = log_of(120, 1)
    whole = estimator.value(estimator.sums(log, POLICY), POLICY)
    for parts in (2, 7, 120):
        cut = np.array_split(np.random.default_rng(parts).permutation(120), parts)
        total = reduce(add, [estimator.sums(log.take(rows), POLICY) for rows in cut])
        assert estimator.value(total, POLICY) == whole


def check_the_policy_that_drew_the_log_has_the_mean_return(estimator: Trajectory) -> None:
    log = log_of(300, 2)
    model = Steps(log.state, log.action, log.reward, np.zeros_like(log.reward), log.offsets, log.group)
    value = estimator.value(estimator.sums(model, LOGGING), LOGGING)
    # Shares of actions are off by chance, and returns with them: by 4% at one standard error.
    assert value == pytest.approx(log.reward.sum() / 300, rel=0.15 if estimator.by_table else 1e-12)


def check_rewards_of_nothing_are_worth_nothing(estimator: Trajectory) -> None:
    log = log_of(100, 3)
    nothing = Steps(log.state, log.action, 0.0 * log.reward, 0.0 * log.reward, log.offsets, log.group)
    assert estimator.value(estimator.sums(nothing, POLICY), POLICY) == 0.0


def check_the_value_scales_with_rewards(estimator: Trajectory) -> None:
    log = log_of(100, 4)
    scaled = Steps(log.state, log.action, 50 * log.reward, 50 * log.expected, log.offsets, log.group)
    once = estimator.value(estimator.sums(log, POLICY), POLICY)
    assert estimator.value(estimator.sums(scaled, POLICY), POLICY) == pytest.approx(50 * once)


def check_nothing_that_is_given_changes(estimator: Trajectory) -> None:
    log = log_of(50, 5)
    kept = log.take(np.arange(50))
    estimator.value(estimator.sums(log, POLICY), POLICY)
    for name in ("state", "action", "reward", "expected", "offsets", "group"):
        assert np.array_equal(getattr(log, name), getattr(kept, name))


def check_no_trajectories_are_no_value(estimator: Trajectory) -> None:
    empty = log_of(5, 6).take(np.zeros(0, dtype=np.int64))
    with pytest.raises(SupportError):
        estimator.value(estimator.sums(empty, POLICY), POLICY)


CHECKS = [value for name, value in sorted(globals().items()) if name.startswith("check_")]
