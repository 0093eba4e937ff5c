"""Finite-horizon decision processes as arrays, batched over n independent runs, and their exact solution.

Axes everywhere: n runs, h steps (0-based), s states, a actions, t next states. A policy is [n, H, S, A], rows sum
to 1. Rewards lie in [0, 1]; values are those of the fixed initial state 0.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from decision.batch import Floats


class Process(NamedTuple):
    """n decision processes of one shape.

    Attributes:
        transitions: [n, H, S, A, S] next-state distributions.
        rewards: [n, H, S, A] mean rewards in [0, 1].
    """

    transitions: Floats
    rewards: Floats


def q_values(process: Process, policy: Floats) -> Floats:
    """Return [n, H, S, A] action values under `policy` ([n, H, S, A])."""
    return _backward(process, policy)


def optimal_q_values(process: Process) -> Floats:
    """Return [n, H, S, A] optimal action values (Bellman)."""
    return _backward(process, None)


def value(process: Process, policy: Floats) -> Floats:
    """Return [n] expected returns of `policy` from state 0, exact."""
    q = q_values(process, policy)
    return (q[:, 0, 0] * policy[:, 0, 0]).sum(-1)


def greedy(q: Floats) -> Floats:
    """Return the policy [n, H, S, A] that takes the first largest action of `q` ([n, H, S, A])."""
    return np.eye(q.shape[-1])[q.argmax(-1)]


def boltzmann(q: Floats, eta: float) -> Floats:
    """Return the policy proportional to exp(eta * q); eta in 1 / reward units."""
    z = np.exp(eta * (q - q.max(-1, keepdims=True)))
    return z / z.sum(-1, keepdims=True)


def _backward(process: Process, policy: Floats | None) -> Floats:
    transitions, rewards = process
    horizon = rewards.shape[1]
    q = np.empty_like(rewards)
    ahead = np.zeros((rewards.shape[0], rewards.shape[2]))
    for h in range(horizon - 1, -1, -1):
        q[:, h] = rewards[:, h] + expect(transitions[:, h], ahead)
        ahead = q[:, h].max(-1) if policy is None else (q[:, h] * policy[:, h]).sum(-1)
    return q


def expect(transitions: Floats, ahead: Floats) -> Floats:
    """Return [n, S, A] expectations of `ahead` ([n, S]) under `transitions` ([n, S, A, S])."""
    n, s, a, t = transitions.shape
    return (transitions.reshape(n, s * a, t) @ ahead[:, :, None]).reshape(n, s, a)
