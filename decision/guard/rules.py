"""What a guard protects, and how sure it has to be.

The served policy is ``(1 - rho) * baseline + rho * candidate``; its expected reward must not fall below
``(1 - alpha)`` times the baseline's. Weights up to alpha need no evidence at all: rewards are not negative, so
giving up a share alpha of the traffic gives up at most a share alpha of the value.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from decision.errors import FieldError
from decision.options import DriftBatch, ErrorRate, Fraction, Positive, Spacing
from decision.validation import Checked


def _bets() -> tuple[float, ...]:
    low, high, count = 0.01, 4.0, 10
    ratio = (high / low) ** (1.0 / (count - 1))
    return tuple(low * ratio**j for j in range(count))


class GuardRules(Checked, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits of one rollout.

    Attributes:
        alpha: share of the baseline's expected reward that may be given up.
        delta: probability with which a rung that breaks that promise may ever be served.
        delta_futility: probability of killing a candidate that is no worse than the baseline.
        delta_promotion: probability of promoting a candidate that is no better than the baseline.
        center: reward that evidence counts from, a share of `reward_max` that was fixed before the first decision: a
            control variate, best near the mean; 0 for none.
        reward_max: largest reward; rewards lie in [0, reward_max] after the shift by the loop's minimum.
        top: largest weight; the rest stays with the baseline, so that it remains measurable.
        spacing: distance between rungs.
        bets: fixed grid of bets, in units of 1 / reward_max.
        drift_bets: the drift detector's grid, below 1.
        drift_threshold: the detector's alarm level; the mean number of batches between false alarms is at least this.
        batch: matured decisions per step of the detector.
    """

    alpha: ErrorRate = 0.05
    delta: ErrorRate = 0.05
    delta_futility: ErrorRate = 0.05
    delta_promotion: ErrorRate = 0.05
    center: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.0
    reward_max: Positive = 1.0
    top: Fraction = 0.95
    spacing: Spacing = 0.05
    bets: Annotated[tuple[Positive, ...], msgspec.Meta(min_length=1)] = msgspec.field(default_factory=_bets)
    drift_bets: Annotated[tuple[Fraction, ...], msgspec.Meta(min_length=1)] = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64)
    drift_threshold: Annotated[float, msgspec.Meta(gt=1)] = 1000.0
    batch: DriftBatch = 2000

    def _relations(self) -> None:
        if not self.alpha < self.top:
            raise FieldError("top", wanted=f"above alpha = {self.alpha}", got=self.top)

    @property
    def rungs(self) -> tuple[float, ...]:
        """Weights in the order climbed: alpha, then multiples of the spacing, then the top."""
        steps = [round(j * self.spacing, 10) for j in range(1, int(1 / self.spacing) + 1)]
        return (self.alpha, *[w for w in steps if self.alpha + 1e-9 < w < self.top - 1e-9], self.top)
