"""Conservative SquareCB: inverse gap weighting on any regression oracle, paid for from savings against the baseline.

After Deb, Ghavamzadeh, Banerjee 2025 (ICLR, arXiv 2412.06165), written for rewards. Their constants are not claimed;
the budget test follows from Foster and Rakhlin 2020 (arXiv 2002.04926, Lemma 2): over m explored rounds
``sum_t sum_a p_t(a) * (f_t(a) - f*(a))^2 <= 2 * Reg(m) + 16 * log(2 / delta)`` with probability 1 - delta, hence by
Cauchy and Schwarz the predicted rewards of these rounds exceed the true ones by at most
``sqrt(m * (2 * Reg(m) + 16 * log(2 / delta)))`` in sum. That is conservative: small problems spend long on the
baseline, and `slack` scales the term for those who measure instead.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from decision.batch import Floats
from decision.exploration.squarecb import squarecb


class Budget(NamedTuple):
    """What has been explored and saved.

    Attributes:
        rounds: m, explored rounds.
        predicted: summed predicted rewards of the distributions that were played in them.
        saved: baseline rewards of the other rounds less ``1 - alpha`` times those of all rounds.
    """

    rounds: int = 0
    predicted: float = 0.0
    saved: float = 0.0


class Played(NamedTuple):
    """A round's distribution.

    Attributes:
        pmf: [K] probabilities.
        predicted: its predicted reward.
        explores: False where it is the baseline for want of savings.
    """

    pmf: Floats
    predicted: float
    explores: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ConservativeSquareCB:
    """Inverse gap weighting under a cumulative budget.

    Attributes:
        regret: m -> bound on the oracle's squared-loss regret after m rounds; ``d * log(1 + m / d) + 1`` for ridge.
        alpha: share of the baseline's reward that may be given up, in (0, 1).
        delta: error probability, in (0, 1).
        scale: the inverse-gap rate in explored round m is ``scale * sqrt(K * m / regret(m))``, in 1 / reward units.
        slack: multiplier of the budget's error term; 1 is what the lemma gives.
    """

    regret: Callable[[int], float]
    alpha: float = 0.1
    delta: float = 0.05
    scale: float = 4.0
    slack: float = 1.0

    def play(self, budget: Budget, scores: Floats, *, baseline: int, baseline_reward: float) -> Played:
        """Return the round's distribution.

        Args:
            budget: what is saved.
            scores: [K] the oracle's predicted rewards.
            baseline: the baseline's position.
            baseline_reward: its expected reward.
        """
        m = budget.rounds + 1
        rate = self.scale * float(np.sqrt(scores.size * m / self.regret(m)))
        pmf = squarecb(scores, np.array([0, scores.size]), gamma=rate)
        predicted = float(pmf @ scores)
        error = self.slack * float(np.sqrt(m * (2.0 * self.regret(m) + 16.0 * np.log(2.0 / self.delta))))
        owed = (1.0 - self.alpha) * baseline_reward
        if budget.predicted + predicted - error + budget.saved - owed >= 0.0:
            return Played(pmf, predicted, True)
        return Played(np.eye(scores.size)[baseline], baseline_reward, False)

    def after(self, budget: Budget, played: Played, *, baseline_reward: float) -> Budget:
        """Return the budget after a round; the caller updates the oracle after explored rounds."""
        owed = (1.0 - self.alpha) * baseline_reward
        if not played.explores:
            return budget._replace(saved=budget.saved + baseline_reward - owed)
        return Budget(budget.rounds + 1, budget.predicted + played.predicted, budget.saved - owed)
