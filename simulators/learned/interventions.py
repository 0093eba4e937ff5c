"""Intervention tests: what a simulator must do when an action is forced, if what is known beforehand holds.

Sim2Rec drops simulators, users and actions that fail (F_trend and F_exec; the definitions here are ours, the paper's
are not public in code). Known beforehand of content that pulls and wears out: more clickbait engages more at once, and
after much of it the same document engages less than after little.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simulators.environments.lts.env import DOCUMENTS, Singles
from simulators.learned.logs import Trajectories
from simulators.learned.responses import Response

PASS = 0.8
"""Share of the users tried for whom the trend must be right."""
_HELD = 12
_SLACK = 0.02
"""A response may fall by this share and still not count as falling."""


@dataclass(frozen=True, slots=True)
class Trend:
    """How a simulator responds when pushed.

    Attributes:
        at_once: share of users whose immediate response does not fall as clickbait rises.
        worn: share of users who respond less after clickbait was held high than after it was held low.
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
        low: first document swept.
        high: last one.
        users: tried, at most.
        after: steps of the log that are followed first.
    """
    log = log.take(np.arange(min(users, len(log))))
    memory = memory_after(model, log, after)
    n = len(log)
    swept = np.linspace(low, high, 6) / DOCUMENTS
    at_once = np.stack([model.predict(memory, np.full(n, c, np.float32))[0] for c in swept])
    rising = (np.diff(at_once, axis=0) >= -_SLACK).all(axis=0)
    ends = []
    for document in (low, high):
        held, c = memory, np.full(n, document / DOCUMENTS, np.float32)
        for _ in range(_HELD):
            held = model.advance(held, c, model.predict(held, c)[0])
        ends.append(model.predict(held, np.full(n, (low + high) / 2 / DOCUMENTS, np.float32))[0])
    return Trend(float(rising.mean()), float((ends[1] < ends[0]).mean()))


def memory_after(model: Response, log: Trajectories, steps: int) -> Singles:
    """Return what `model` remembers of the logged users after `steps` of their trajectories."""
    memory = model.start(len(log))
    clickbait, response = log.clickbait, log.logs
    for time in range(steps):
        memory = model.advance(memory, clickbait[:, time], response[:, time])
    return memory
