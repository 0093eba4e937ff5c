"""How exploratory and how good a log is, before anything is trained on it.

Schweighofer, Dinu, Radler et al. 2022, "A dataset perspective on offline reinforcement learning" (arXiv 2111.04714):
state-action coverage SACo is the number of unique (context, action) pairs over that of a reference log, the trajectory
quality TQ the mean reward between that of the worst and that of the best policy known. For a bandit log a trajectory is
one decision, and three measures of exploration come with the propensities: entropy, the share of decisions that could
have gone another way, and the effective sample size for the uniform policy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from decision.batch import Floats, Interactions
from decision.ope.sums.exact import Exact, added, exact_sums, rounded

SINGLE = 0.999
"""A propensity above this left no choice."""


@dataclass(frozen=True, slots=True)
class LogQuality:
    """Mergeable sums of a log's exploration and reward; `+` merges shards.

    Attributes:
        rows: decisions.
        reward: sum of rewards.
        reward_square: sum of their squares.
        entropy: sum of ``-ln p`` of drawn actions over that of the uniform policy, ``ln K``, where K > 1.
        choices: decisions with more than one action.
        forced: decisions whose action was drawn with probability above .999.
        weight: sum of ``1 / (p K)``, the weights of the uniform policy.
        weight_square: sum of their squares.
        smallest: smallest propensity.
    """

    rows: int = 0
    reward: Exact = ()
    reward_square: Exact = ()
    entropy: Exact = ()
    choices: int = 0
    forced: int = 0
    weight: Exact = ()
    weight_square: Exact = ()
    smallest: float = 1.0

    @staticmethod
    def of(log: Interactions) -> LogQuality:
        """Return the sums of a log."""
        k = np.diff(log.batch.offsets).astype(np.float64)
        several = k > 1
        entropy: Floats = np.zeros(len(log))
        entropy[several] = -np.log(log.propensity[several]) / np.log(k[several])
        weights = 1.0 / (log.propensity * k)
        sums = exact_sums([log.reward, log.reward**2, entropy, weights, weights**2])
        return LogQuality(
            len(log),
            sums[0],
            sums[1],
            sums[2],
            int(several.sum()),
            int((log.propensity > SINGLE).sum()),
            sums[3],
            sums[4],
            float(log.propensity.min(initial=1.0)),
        )

    def __add__(self, other: LogQuality) -> LogQuality:
        return LogQuality(
            self.rows + other.rows,
            added(self.reward, other.reward),
            added(self.reward_square, other.reward_square),
            added(self.entropy, other.entropy),
            self.choices + other.choices,
            self.forced + other.forced,
            added(self.weight, other.weight),
            added(self.weight_square, other.weight_square),
            min(self.smallest, other.smallest),
        )

    @property
    def mean_reward(self) -> float:
        """Mean reward; 0 without rows."""
        return rounded(self.reward) / max(self.rows, 1)

    @property
    def mean_entropy(self) -> float:
        """Surprise of the drawn actions, 1 for a uniform log, 0 for one without any choice."""
        return rounded(self.entropy) / max(self.choices, 1)

    @property
    def forced_share(self) -> float:
        """Share of decisions that could hardly have gone another way."""
        return self.forced / max(self.rows, 1)

    @property
    def uniform_ess_share(self) -> float:
        """Effective sample size for the uniform policy as a share of the rows, 1 for a uniform log."""
        square = rounded(self.weight_square)
        return rounded(self.weight) ** 2 / square / max(self.rows, 1) if square > 0 else 0.0


def trajectory_quality(mean: float, *, worst: float, best: float) -> float | None:
    """Return TQ, the mean reward between the worst (0) and the best (1) policy; None where they are alike."""
    return (mean - worst) / (best - worst) if best > worst else None


def coverage(seen: int, reference: int) -> float | None:
    """Return SACo, unique pairs seen over those of a reference log of as many rows; None where that has none."""
    return seen / reference if reference > 0 else None
