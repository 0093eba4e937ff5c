"""Logged trajectories: what a policy of limited support showed, how likely it was to, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from decision.errors import FieldError
from simulators.environments.lts.env import DOCUMENTS, HORIZON, Counts, LtsEnv, LtsUsers, Singles

SHOWN = (6, 18)
"""First and last document that the logging policy shows: clickbait from .2 to .6."""
CHANGE = 0.3
"""Probability with which it draws anew instead of repeating the last document."""


@dataclass(frozen=True, slots=True, eq=False)
class Trajectories:
    """n users over T steps.

    Attributes:
        documents: [n, T] int64 shown.
        rewards: [n, T] what came of it.
        propensities: [n, T] probability with which each was shown, in (0, 1].
    """

    documents: Counts
    rewards: Singles
    propensities: Singles

    def __post_init__(self) -> None:
        shape = self.documents.shape
        if len(shape) != 2 or self.rewards.shape != shape or self.propensities.shape != shape:
            raise FieldError("trajectories", wanted="three arrays of one shape [n, T]", got=shape)
        if not np.isfinite(self.rewards).all():
            raise FieldError("trajectories.rewards", wanted="finite numbers", got=self.rewards)
        if self.propensities.min() <= 0.0 or self.propensities.max() > 1.0:
            raise FieldError("trajectories.propensities", wanted="numbers in (0, 1]", got=self.propensities)

    def __len__(self) -> int:
        return len(self.documents)

    @property
    def clickbait(self) -> Singles:
        """[n, T] float32, document / 30."""
        return (self.documents / DOCUMENTS).astype(np.float32)

    @property
    def logs(self) -> Singles:
        """[n, T] logarithm of the rewards, cut below at .05."""
        return np.log(np.maximum(self.rewards, 0.05)).astype(np.float32)

    @property
    def executed(self) -> tuple[int, int]:
        """The lowest and the highest document in the log: beyond them nothing was seen."""
        return int(self.documents.min()), int(self.documents.max())

    def take(self, rows: Counts) -> Trajectories:
        """Return the users at `rows`; the same user may come twice."""
        return Trajectories(self.documents[rows], self.rewards[rows], self.propensities[rows])


def habitual(last: Counts | None, users: int, rng: np.random.Generator) -> tuple[Counts, Singles]:
    """Return the logging policy's next documents [n] and their propensities, after `last` ([n] or None at first)."""
    low, high = SHOWN
    drawn = rng.integers(low, high + 1, users)
    width = high - low + 1
    if last is None:
        return drawn, np.full(users, 1.0 / width, np.float32)
    documents = np.where(rng.random(users) < CHANGE, drawn, last)
    again = CHANGE / width + (1.0 - CHANGE) * (documents == last)
    return documents, again.astype(np.float32)


def logged(users: LtsUsers, seed: int, *, horizon: int = HORIZON) -> Trajectories:
    """Return what the logging policy does with `users` in long-term satisfaction."""
    rng, env = np.random.default_rng(seed), LtsEnv(users, horizon=horizon)
    env.reset(seed=seed)
    n = len(users)
    documents = np.empty((n, horizon), np.int64)
    rewards, propensities = np.empty((n, horizon), np.float32), np.empty((n, horizon), np.float32)
    last = None
    for time in range(horizon):
        last, propensities[:, time] = habitual(last, n, rng)
        documents[:, time] = last
        rewards[:, time] = env.step(last)[1]
    return Trajectories(documents, rewards, propensities)
