"""Is reality still among the simulators? The surprise of what was observed, under the one that fits it best.

A policy trained in a set of simulators is vouched for where one of them resembles the world. When responses are
unlikely under every one, nothing vouches for it, and whoever watches should let the bandit answer until the set is
learned anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from decision.errors import FieldError
from simulators.learned.responses import Response
from simulators.learned.trajectories import Singles, Trajectories

FIRST = 5
"""Steps of a user that are not judged: nobody knows him yet."""
_CUT = 25.0
"""Squared standardised errors are cut at this, so that single users do not raise the alarm."""


def surprise(model: Response, log: Trajectories) -> float:
    """Return the mean squared standardised error of one-step predictions; about 1 where `model` is right.

    Raises:
        FieldError: trajectories are too short to judge.
    """
    steps = int(log.inside.sum(axis=1).max())
    if steps <= FIRST:
        raise FieldError("log", wanted=f"more than {FIRST} steps", got=steps)
    memory, shown, response = model.start(len(log)), log.shown, log.responses
    total = 0.0
    for time in range(steps):
        mean, sd = model.predict(memory, shown[:, time])
        if time >= FIRST:
            missed = np.minimum(np.square((response[:, time] - mean) / sd), _CUT)
            total += float(missed[log.inside[:, time]].mean())
        memory = model.advance(memory, shown[:, time], response[:, time])
    return total / (steps - FIRST)


def surprises(model: Response, log: Trajectories) -> Singles:
    """Return [n] each user's mean squared standardised error, from the sixth step on; NaN for one with fewer."""
    memory, shown, response = model.start(len(log)), log.shown, log.responses
    total, count = np.zeros(len(log)), np.zeros(len(log))
    for time in range(log.steps):
        mean, sd = model.predict(memory, shown[:, time])
        if time >= FIRST:
            inside = log.inside[:, time]
            total += np.where(inside, np.minimum(np.square((response[:, time] - mean) / sd), _CUT), 0.0)
            count += inside
        memory = model.advance(memory, shown[:, time], response[:, time])
    return np.where(count > 0, total / np.maximum(count, 1.0), np.nan).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Watch:
    """When to raise the alarm.

    Attributes:
        limit: surprise of the best simulator from which on reality is outside of the set.
    """

    limit: float

    def alarmed(self, models: Sequence[Response], seen: Trajectories) -> bool:
        """Return whether what was `seen` is unlikely under every one of `models`."""
        return min(surprise(model, seen) for model in models) > self.limit


def calibrated(
    models: Sequence[Response], log: Trajectories, seed: int, *, users: int = 50, level: float = 0.99
) -> Watch:
    """Return a watch whose limit `level` of random groups of logged users stay under, with half as much again.

    Args:
        models: the simulators.
        log: users of a world that they were learned from; best ones that they have not seen.
        seed: of the groups.
        users: in a group; as many as will be watched at once.
        level: in (0, 1).
    """
    if not 0.0 < level < 1.0:
        raise FieldError("level", wanted="a number in (0, 1)", got=level)
    rng = np.random.default_rng(seed)
    groups = [log.take(rng.integers(0, len(log), min(users, len(log)))) for _ in range(20)]
    usual = [min(surprise(model, group) for model in models) for group in groups]
    return Watch(1.5 * float(np.quantile(usual, level)))
