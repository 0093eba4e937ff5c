"""CLUCB: an optimistic linear policy that explores only what its savings against the baseline can pay for.

The constraint is cumulative: in every round the rewards expected so far are at least ``1 - alpha`` times those of
the baseline's actions, whose rewards are known. The optimistic action is taken while the least that all explored
rounds can have earned, this one included, keeps that promise (Kazerouni, Ghavamzadeh, Abbasi-Yadkori, Van Roy 2017,
arXiv 1611.06426, Algorithm 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from decision.batch import Floats
from decision.conservative.bandit.ridge import Ridge


class CLUCBState(NamedTuple):
    """What has been learned and saved so far.

    Attributes:
        ridge: regression of the explored rounds.
        explored: [d] summed features of the explored actions.
        saved: baseline rewards of the conservative rounds less ``1 - alpha`` times those of all rounds.
    """

    ridge: Ridge
    explored: Floats
    saved: float


class Chosen(NamedTuple):
    """A deterministic choice.

    Attributes:
        action: row of the actions offered.
        explores: False where it is the baseline's for want of savings.
    """

    action: int
    explores: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CLUCB:
    """Conservative linear upper confidence bounds.

    Attributes:
        alpha: share of the baseline's reward that may be given up, in (0, 1).
        delta: error probability of the ellipsoid, in (0, 1).
        noise: sub-Gaussian scale of the rewards.
        norm: largest norm of the true parameter.
        ridge: prior precision, > 0.
    """

    alpha: float = 0.1
    delta: float = 0.05
    noise: float = 0.5
    norm: float = 1.0
    ridge: float = 1.0

    def init(self, dim: int) -> CLUCBState:
        """Return the state before any round."""
        return CLUCBState(Ridge.prior(dim, self.ridge), np.zeros(dim), 0.0)

    def choose(self, state: CLUCBState, x: Floats, *, baseline: int, baseline_reward: float) -> Chosen:
        """Return the round's action.

        Args:
            state: from `init` or `update`.
            x: [K, d] action features.
            baseline: the baseline's row.
            baseline_reward: its expected reward.
        """
        theta, beta = state.ridge.estimate(), self._radius(state)
        best = int((x @ theta + beta * state.ridge.width(x)).argmax())
        played = state.explored + x[best]
        least = float(played @ theta - beta * state.ridge.width(played))
        if least + state.saved - (1.0 - self.alpha) * baseline_reward >= 0.0:
            return Chosen(best, True)
        return Chosen(baseline, False)

    def update(
        self, state: CLUCBState, chosen: Chosen, x: Floats, reward: float, *, baseline_reward: float
    ) -> CLUCBState:
        """Return the state after a round; only explored rounds teach, the baseline's reward being known.

        Args:
            state: of the round.
            chosen: what `choose` said.
            x: [d] features of the action taken.
            reward: what it earned.
            baseline_reward: the baseline's expected reward in this round.
        """
        owed = (1.0 - self.alpha) * baseline_reward
        if not chosen.explores:
            return state._replace(saved=state.saved + baseline_reward - owed)
        return CLUCBState(state.ridge.after(x, reward), state.explored + x, state.saved - owed)

    def _radius(self, state: CLUCBState) -> float:
        return state.ridge.radius(noise=self.noise, norm=self.norm, delta=self.delta)
