"""What a reward model predicts of a lift, in standard errors of its estimate, whatever the rewards of the log say.

The doubly robust lift has the variance of its predicted part and, of the residuals, ``sigma^2 E (w_new - w_old)^2``.
Both are known from features, probabilities and one number for the size of the noise. So the score says where a test is
likely to succeed without having tested: error may be spent by it (Genovese, Roeder, Wasserman 2006, Biometrika 93, on
weights of tests that depend on nothing that is tested).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from decision.batch import Floats, Interactions
from decision.ope.sums.exact import Exact, added, exact_sums, rounded
from decision.ope.weights import weights_of
from decision.ragged import group_sum


@dataclass(frozen=True, slots=True)
class PredictedLift:
    """Sums of n rows; `+` merges shards.

    Attributes:
        n: rows.
        direct: sum of d, what the model predicts the new policy to get in a row beyond the old one.
        square: sum of d^2.
        weights: sum of (w_new - w_old)^2.
    """

    n: int
    direct: Exact
    square: Exact
    weights: Exact

    def __add__(self, other: PredictedLift) -> PredictedLift:
        return PredictedLift(
            self.n + other.n,
            added(self.direct, other.direct),
            added(self.square, other.square),
            added(self.weights, other.weights),
        )

    def score(self, sigma: float) -> float:
        """Return the predicted lift in standard errors of its estimate; 0 where nothing differs.

        Args:
            sigma: standard deviation of rewards about the model's predictions, in reward units.
        """
        if not self.n:
            return 0.0
        direct, square, weights = rounded(self.direct), rounded(self.square), rounded(self.weights)
        variance = max(square - direct**2 / self.n, 0.0) + sigma**2 * weights
        return direct / math.sqrt(variance) if variance > 0.0 else 0.0


def predicted_lift_of(
    interactions: Interactions, new: Floats, old: Floats, expected: Floats, *, largest: float = math.inf
) -> PredictedLift:
    """Return what the model predicts of `lift_of`, or with `largest` of `switched_lift_of`; arguments as there."""
    w_new, w_old = weights_of(interactions, new), weights_of(interactions, old)
    direct = group_sum((new - old) * expected, interactions.batch.offsets)
    differ = np.where(np.maximum(w_new, w_old) <= largest, w_new - w_old, 0.0)
    return PredictedLift(len(interactions), *exact_sums([direct, direct**2, differ**2]))
