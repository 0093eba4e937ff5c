"""Bounds on values from visit counts: upper and lower bounds by backward recursion with Bernstein bonuses.

The recursions are those of BPI-UCBVI (Menard et al. 2021) with scaled constants: the theory's are unusable on small
problems, so the bonus is ``c1 * sqrt(Var * b / n) + c2 * (H - h) * b / n`` with b the log factor, once for the next
state's value and once for the unknown Bernoulli reward, and coverage is measured in the study instead of assumed.
Bounds are clipped at what is certain: [0, remaining horizon].
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from decision.batch import Floats
from decision.conservative.tabular.process import expect


class Bonus(NamedTuple):
    """Constants of the confidence bonus.

    Attributes:
        c1: multiplier of the standard-deviation term.
        c2: multiplier of the range term.
        delta: error probability in the log factor.
        joint: one bonus on the variance of reward plus next value together, instead of two added ones. Reward and
            next state are independent given (s, a), so the variances add and the bonus shrinks by up to sqrt(2).
    """

    c1: float = 0.3
    c2: float = 0.1
    delta: float = 0.1
    joint: bool = False


class Counts(NamedTuple):
    """Sufficient statistics of n runs; updated in place by whoever plays.

    Attributes:
        visits: [n, H, S, A] visits.
        rewards: [n, H, S, A] summed rewards.
        moves: [n, H, S, A, S] transitions seen.
    """

    visits: Floats
    rewards: Floats
    moves: Floats

    @staticmethod
    def zeros(n: int, horizon: int, states: int, actions: int) -> Counts:
        """Return empty statistics."""
        shape = (n, horizon, states, actions)
        return Counts(np.zeros(shape), np.zeros(shape), np.zeros((*shape, states)))


class Model(NamedTuple):
    """The empirical process and its bonus terms, ready for recursions.

    Attributes:
        transitions: [n, H, S, A, S] empirical, uniform where nothing was seen.
        rewards: [n, H, S, A] empirical means, 0 where nothing was seen.
        rate: [n, H, S, A] b / visits, infinite where nothing was seen.
        bonus: the constants.
    """

    transitions: Floats
    rewards: Floats
    rate: Floats
    bonus: Bonus


def model_of(counts: Counts, bonus: Bonus) -> Model:
    """Return the empirical model of `counts`."""
    horizon, states, actions = counts.visits.shape[1:]
    seen = np.maximum(counts.visits, 1.0)
    transitions = np.where(counts.visits[..., None] > 0, counts.moves / seen[..., None], 1.0 / states)
    log_factor = np.log(3.0 * states * actions * horizon / bonus.delta) + np.log(8.0 * np.e * (counts.visits + 1.0))
    rate = np.where(counts.visits > 0, log_factor / seen, np.inf)
    return Model(transitions, counts.rewards / seen, rate, bonus)


def evaluate(model: Model, policy: Floats) -> tuple[Floats, Floats]:
    """Return the ([n], [n]) lower and upper bounds on the value of `policy` ([n, H, S, A]): PolicyEva."""
    lower, upper, _ = _recursion(model, policy)
    return lower, upper


def optimistic(model: Model) -> tuple[Floats, Floats]:
    """Return the policy [n, H, S, A] that is greedy in the upper bounds, and its [n] upper bounds."""
    _, upper, policy = _recursion(model, None)
    return policy, upper


def pessimistic(model: Model) -> tuple[Floats, Floats]:
    """Return the policy [n, H, S, A] that is greedy in the lower bounds (VI-LCB), and its [n] lower bounds.

    Unseen actions have lower bound 0 and are never preferred (Rashidinejad et al. 2021; Xie et al. 2021).
    """
    n, horizon, states, actions = model.rewards.shape
    policy = np.empty((n, horizon, states, actions))
    low = np.zeros((n, states))
    for h in range(horizon - 1, -1, -1):
        width = _width(model, h, low, low)
        q = np.clip(model.rewards[:, h] + expect(model.transitions[:, h], low) - width, 0.0, horizon - h)
        policy[:, h] = np.eye(actions)[q.argmax(-1)]
        low = q.max(-1)
    return policy, low[:, 0]


def _recursion(model: Model, policy: Floats | None) -> tuple[Floats, Floats, Floats]:
    n, horizon, states, actions = model.rewards.shape
    chosen = np.empty((n, horizon, states, actions)) if policy is None else policy
    low = np.zeros((n, states))
    high = np.zeros((n, states))
    for h in range(horizon - 1, -1, -1):
        width = _width(model, h, high, low)
        up = np.clip(model.rewards[:, h] + expect(model.transitions[:, h], high) + width, 0.0, horizon - h)
        down = np.clip(model.rewards[:, h] + expect(model.transitions[:, h], low) - width, 0.0, horizon - h)
        if policy is None:
            chosen[:, h] = np.eye(actions)[up.argmax(-1)]
        high = (up * chosen[:, h]).sum(-1)
        low = (down * chosen[:, h]).sum(-1)
    return low[:, 0], high[:, 0], chosen


def _width(model: Model, h: int, high: Floats, low: Floats) -> Floats:
    """Return [n, S, A] bonus widths at step h; infinite where nothing was seen."""
    c1, c2, _, joint = model.bonus
    horizon = model.rewards.shape[1]
    transitions, rate = model.transitions[:, h], model.rate[:, h]
    mean = expect(transitions, high)
    variance = np.maximum(expect(transitions, high**2) - mean**2, 0.0)
    reward_variance = model.rewards[:, h] * (1.0 - model.rewards[:, h])
    finite = np.where(np.isinf(rate), 0.0, rate)
    if joint:
        width = c1 * np.sqrt((variance + reward_variance) * finite) + c2 * (horizon - h) * finite
    else:
        width = c1 * (np.sqrt(variance * finite) + np.sqrt(reward_variance * finite))
        width += c2 * (horizon - h - 1) * finite + c2 * finite
    return np.where(np.isinf(rate), np.inf, width)
