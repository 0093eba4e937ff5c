"""What a guard protects, and how sure it has to be.

The served policy is ``(1 - rho) * baseline + rho * candidate``; its expected reward must not fall below
``(1 - alpha)`` times the baseline's. Weights up to alpha need no evidence at all: rewards are not negative, so
giving up a share alpha of the traffic gives up at most a share alpha of the value.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from decision.errors import FieldError


def _bets() -> tuple[float, ...]:
    low, high, count = 0.01, 4.0, 10
    ratio = (high / low) ** (1.0 / (count - 1))
    return tuple(low * ratio**j for j in range(count))


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardRules:
    """Limits of one rollout.

    Attributes:
        alpha: share of the baseline's expected reward that may be given up, in (0, 1).
        delta: probability with which a rung that breaks that promise may ever be served, in (0, 1).
        delta_futility: probability of killing a candidate that is no worse than the baseline.
        delta_promotion: probability of promoting a candidate that is no better than the baseline.
        reward_max: largest reward; rewards lie in [0, reward_max] after the shift by the loop's minimum.
        top: largest weight; the rest stays with the baseline, so that it remains measurable.
        spacing: distance between rungs.
        bets: fixed grid of bets, in units of 1 / reward_max.
        drift_bets: the drift detector's grid, below 1.
        drift_threshold: the detector's alarm level; the mean number of batches between false alarms is at least this.
        batch: matured decisions per step of the detector.
    """

    alpha: float = 0.05
    delta: float = 0.05
    delta_futility: float = 0.05
    delta_promotion: float = 0.05
    reward_max: float = 1.0
    top: float = 0.95
    spacing: float = 0.05
    bets: tuple[float, ...] = field(default_factory=_bets)
    drift_bets: tuple[float, ...] = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64)
    drift_threshold: float = 1000.0
    batch: int = 2000

    def __post_init__(self) -> None:
        for name in ("alpha", "delta", "delta_futility", "delta_promotion"):
            number = getattr(self, name)
            if not 0 < number < 1:
                raise FieldError(name, wanted="a number in (0, 1)", got=number)
        if not self.alpha < self.top < 1:
            raise FieldError("top", wanted=f"a number in (alpha = {self.alpha}, 1)", got=self.top)
        if not 0 < self.spacing < 1:
            raise FieldError("spacing", wanted="a number in (0, 1)", got=self.spacing)
        if not self.reward_max > 0:
            raise FieldError("reward_max", wanted="a number above 0", got=self.reward_max)
        if not self.bets or min(self.bets) <= 0:
            raise FieldError("bets", wanted="one number above 0 or more", got=self.bets)
        if not self.drift_bets or not 0 < min(self.drift_bets) <= max(self.drift_bets) < 1:
            raise FieldError("drift_bets", wanted="numbers in (0, 1)", got=self.drift_bets)
        if self.drift_threshold <= 1:
            raise FieldError("drift_threshold", wanted="a number above 1", got=self.drift_threshold)
        if self.batch < 1:
            raise FieldError("batch", wanted="1 or more", got=self.batch)

    @property
    def rungs(self) -> tuple[float, ...]:
        """Weights in the order climbed: alpha, then multiples of the spacing, then the top."""
        steps = [round(j * self.spacing, 10) for j in range(1, int(1 / self.spacing) + 1)]
        return (self.alpha, *[w for w in steps if self.alpha + 1e-9 < w < self.top - 1e-9], self.top)
