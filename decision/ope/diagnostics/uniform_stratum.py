"""Agreement with the rows that were drawn uniformly: the one part of a log whose weights are bounded and known.

On a stratum drawn uniformly over K actions the weight is ``K pi(a)``, at most K, so its estimate is safe if wide. An
estimator whose value on the whole log is further from it than chance allows trusts something it should not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from scipy import special

from decision.errors import SupportError
from decision.ope.estimate import Estimate


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far an estimate is from the uniform stratum's.

    Attributes:
        difference: the estimate minus the stratum's.
        z: the same in standard errors of the difference.
        p_value: chance of a larger one where both are right.
        agrees: whether that chance is above the level of the test, shared by all estimates.
    """

    difference: float
    z: float
    p_value: float
    agrees: bool


def agreement(
    stratum: Estimate, estimates: Mapping[str, Estimate], *, share: float, error: float = 0.05
) -> dict[str, Agreement]:
    """Return the agreement of every estimate with the uniform stratum's.

    The stratum's rows are part of the whole log; counting both spreads in full makes the test careful, never bold.

    Args:
        stratum: estimate from the rows that were drawn uniformly.
        estimates: from the whole log, or from its other rows, by name.
        share: of the log's rows that the stratum is.
        error: chance of calling any estimate wrong when all are right, in (0, 1).

    Raises:
        SupportError: the stratum has no interval: fewer than two rows.
    """
    if not math.isfinite(stratum.high):
        raise SupportError("the uniform stratum has fewer than two rows")
    if not 0 < share <= 1:
        raise SupportError("there is no uniform stratum in the log")
    limit = error / max(len(estimates), 1)
    out: dict[str, Agreement] = {}
    for name, estimate in estimates.items():
        spread = math.hypot(_error(stratum), _error(estimate))
        difference = estimate.value - stratum.value
        z = difference / spread if spread > 0 else math.copysign(math.inf, difference) if difference else 0.0
        p_value = float(2.0 * special.ndtr(-abs(z)))
        out[name] = Agreement(difference, z, p_value, p_value >= limit)
    return out


def closest(found: Mapping[str, Agreement], estimates: Mapping[str, Estimate]) -> str | None:
    """Return the name of the narrowest estimate that agrees; None where none does."""
    kept = [name for name, one in found.items() if one.agrees and math.isfinite(estimates[name].high)]
    return min(kept, key=lambda name: estimates[name].high - estimates[name].low) if kept else None


def _error(estimate: Estimate) -> float:
    return (estimate.high - estimate.low) / 2.0 / float(special.ndtri(0.5 + estimate.level / 2.0))
