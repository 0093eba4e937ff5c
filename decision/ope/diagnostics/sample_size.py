"""How many decisions it takes to see a lift: a log's own spread says it.

A two-sided test at level 1 - alpha finds a lift of delta with probability `power` from

    n = (z_(1 - alpha / 2) + z_power)^2 sigma^2 / delta^2

decisions whose terms have the variance sigma^2 (Chow, Shao, Wang, Lokhnygina 2018, "Sample Size Calculations in
Clinical Research", chapter 3). In a replay these are the paired terms of the lift, so sigma^2 is n times the square of
its standard error. In a test of two sides, sigma^2 is the sum of both sides' variances, and n is for each side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy.special import ndtri

from decision.errors import FieldError

POWER = 0.8
"""Probability with which a lift is to be seen."""


@dataclass(frozen=True, slots=True)
class Needed:
    """What it takes to see a lift.

    Attributes:
        lift: the lift that is wanted, in reward per decision.
        level: of the two-sided interval that has to leave 0 out.
        power: probability that it does.
        replay: decisions, logged as these were, for a replay.
        side: decisions in each side of a test by draws of half and half, at the spread of the logged rewards.
        smallest: lift that a log of this one's length shows with this probability.
    """

    lift: float
    level: float
    power: float
    replay: int
    side: int
    smallest: float


def rows_needed(
    lift: float, *, rows: int, lift_error: float, logged_error: float, level: float = 0.95, power: float = POWER
) -> Needed:
    """Return how many decisions it takes to see a lift.

    Args:
        lift: the lift that is wanted, in reward per decision; not 0.
        rows: decisions of the log.
        lift_error: standard error of the lift on them.
        logged_error: standard error of the mean logged reward on them.
        level: of the two-sided interval, above 0 and below 1.
        power: probability of seeing the lift, above 0 and below 1.

    Raises:
        FieldError: a number is outside its range.
    """
    if not (math.isfinite(lift) and lift):
        raise FieldError("lift", wanted="a finite number other than 0", got=lift)
    for name, share in (("level", level), ("power", power)):
        if not 0.0 < share < 1.0:
            raise FieldError(name, wanted="a number above 0 and below 1", got=share)
    both = float(ndtri(0.5 + level / 2.0) + ndtri(power))

    def needed(variance: float) -> int:
        return max(2, math.ceil(both**2 * variance / lift**2))

    return Needed(
        lift=lift,
        level=level,
        power=power,
        replay=needed(rows * lift_error**2),
        side=needed(2.0 * rows * logged_error**2),
        smallest=both * lift_error,
    )
