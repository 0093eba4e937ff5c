"""What every estimator returns."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its doubt.

    Attributes:
        value: the estimate, in reward per decision.
        low: lower end of the two-sided interval.
        high: upper end.
        level: coverage the interval aims at.
        n: rows.
        ess: effective sample size of the importance weights, (sum w)^2 / sum w^2; n where none are used.
        reasons: why it should not be trusted; empty when nothing speaks against it.
    """

    value: float
    low: float
    high: float
    level: float
    n: int
    ess: float
    reasons: tuple[str, ...] = ()
