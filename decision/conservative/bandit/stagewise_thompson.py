"""Stage-wise conservative linear Thompson sampling: every single round keeps ``1 - alpha`` of the baseline's reward.

Each round the sampled parameter picks among the actions whose lower bound meets the threshold; where none does, the
baseline is played with a small share of uniform exploration (Moradipari, Thrampoulidis, Alizadeh 2020, arXiv
2010.00081, SCLTS). Two things are ours: rewards are not negative, so the exploring share may be alpha itself (giving up
a share alpha of the draws gives up at most a share alpha of the reward), and membership of the safe set is the only
test - the paper also waits for the smallest eigenvalue of V to grow, which its regret proof needs and safety does not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from decision.batch import Floats
from decision.conservative.bandit.ridge import Ridge


@dataclass(frozen=True, slots=True, kw_only=True)
class StagewiseThompson:
    """Thompson sampling within the rounds' safe sets. Its state is a `Ridge` of every round.

    Attributes:
        alpha: share of the baseline's reward that may be given up in every round, in (0, 1).
        delta: error probability of the ellipsoid, in (0, 1).
        noise: sub-Gaussian scale of the rewards.
        norm: largest norm of the true parameter.
        scale: multiplier of the sampled deviation; 1 is the paper's inflation by beta.
    """

    alpha: float = 0.1
    delta: float = 0.05
    noise: float = 0.5
    norm: float = 1.0
    scale: float = 1.0

    def safe(self, state: Ridge, x: Floats, *, baseline_reward: float) -> Floats:
        """Return [K] 1.0 for the actions ([K, d]) whose lower bound meets the threshold."""
        beta = state.radius(noise=self.noise, norm=self.norm, delta=self.delta)
        lower = x @ state.estimate() - beta * state.width(x)
        return (lower >= (1.0 - self.alpha) * baseline_reward).astype(np.float64)

    def pmf(self, state: Ridge, x: Floats, normal: Floats, *, baseline: int, baseline_reward: float) -> Floats:
        """Return [K] probabilities given the sampled deviation.

        Args:
            state: regression of all rounds so far.
            x: [K, d] action features.
            normal: [d] standard normal numbers, the draw of the parameter.
            baseline: the baseline's row.
            baseline_reward: its expected reward, >= 0.
        """
        count = x.shape[0]
        allowed = self.safe(state, x, baseline_reward=baseline_reward) > 0
        if not allowed.any():
            return (1.0 - self.alpha) * np.eye(count)[baseline] + self.alpha / count
        beta = state.radius(noise=self.noise, norm=self.norm, delta=self.delta)
        # The Cholesky factor of the inverse is a square root of it: the deviation has covariance beta^2 V^-1.
        sampled = state.estimate() + self.scale * beta * np.linalg.cholesky(state.inverse) @ normal
        scores = np.where(allowed, x @ sampled, -np.inf)
        return np.eye(count)[int(scores.argmax())]
