"""Intervention tests: what a simulator must do when an action is forced, if what is known beforehand holds.

Sim2Rec drops simulators, users and actions that fail (F_trend and F_exec; the definitions here are ours, the paper's
are not public in code). Known beforehand of content that pulls and wears out: more of the first feature engages more at
once, and after much of it the same action engages less than after little.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simulators.learned.responses import Response
from simulators.learned.trajectories import Singles, Trajectories

PASS = 0.8
"""Share of the users tried for whom the trend must be right."""
_HELD = 12
_SLACK = 0.02
"""A response may fall by this much and still not count as falling."""


@dataclass(frozen=True, slots=True)
class Trend:
    """How a simulator responds when pushed.

    Attributes:
        at_once: share of users whose immediate response does not fall as the feature rises.
        worn: share of users who respond less after it was held high than after it was held low.
    """

    at_once: float
    worn: float

    @property
    def passed(self) -> bool:
        """Whether both trends are right for enough users."""
        return self.at_once >= PASS and self.worn >= PASS


def trend_of(model: Response, log: Trajectories, low: int, high: int, *, users: int = 200, after: int = 30) -> Trend:
    """Push `model` from logged states.

    Args:
        model: the simulator.
        log: whose first `after` steps bring users into a state.
        low: code of the first action swept; between the two only the first feature changes.
        high: code of the last one.
        users: tried, at most.
        after: steps of the log that are followed first.
    """
    after = min(after, log.steps)
    reached = np.flatnonzero(log.inside[:, after - 1]) if after else np.arange(len(log))
    log = log.take(reached[:users])
    memory = memory_after(model, log, after)
    n, features = len(log), log.catalogue.features

    def at(value: float) -> Singles:
        shown = np.zeros((n, features.shape[1]), np.float32)
        shown[:, 0] = value
        return shown

    least, most = float(features[low, 0]), float(features[high, 0])
    at_once = np.stack([model.predict(memory, at(value))[0] for value in np.linspace(least, most, 6)])
    rising = (np.diff(at_once, axis=0) >= -_SLACK).all(axis=0)
    ends = []
    for value in (least, most):
        held = memory
        for _ in range(_HELD):
            held = model.advance(held, at(value), model.predict(held, at(value))[0])
        ends.append(model.predict(held, at((least + most) / 2.0))[0])
    return Trend(float(rising.mean()), float((ends[1] < ends[0]).mean()))


def memory_after(model: Response, log: Trajectories, steps: int) -> Singles:
    """Return what `model` remembers of the logged users after `steps` of their trajectories."""
    memory = model.start(len(log))
    shown, response = log.shown, log.responses
    for time in range(steps):
        memory = model.advance(memory, shown[:, time], response[:, time])
    return memory
