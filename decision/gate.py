"""The promotion gate: a verdict on a paired lift, with its reasons in words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from decision.errors import FieldError
from decision.ope.estimate import Estimate


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the gate says.

    Attributes:
        promote: whether the new version may take over.
        reasons: why, or why not.
        numbers: what the verdict rests on.
    """

    promote: bool
    reasons: list[str]
    numbers: dict[str, float] = field(default_factory=dict)


def judge(lift: Callable[..., Estimate], *, alpha: float, margin: float, minimum_ess: float) -> Verdict:
    """Promote when the one-sided lower bound of the lift lies above minus `margin` on enough evidence.

    Args:
        lift: level -> two-sided estimate of the lift, see `decision.ope.lift.Lift.estimate`.
        alpha: error probability of the one-sided bound, in (0, .5).
        margin: reward units by which the bound may lie below zero, >= 0.
        minimum_ess: effective sample size below which the answer is no.

    Raises:
        FieldError: a setting is outside its range.
    """
    if not 0 < alpha < 0.5:
        raise FieldError("alpha", wanted="a number in (0, 0.5)", got=alpha)
    if not margin >= 0:
        raise FieldError("margin", wanted="0 or more", got=margin)
    estimate = lift(level=1.0 - 2.0 * alpha)
    numbers = {"lift": estimate.value, "lower_bound": estimate.low, "ess": estimate.ess, "rows": float(estimate.n)}
    reasons: list[str] = []
    if estimate.ess < minimum_ess:
        reasons.append(f"effective sample size {estimate.ess:.0f} is below {minimum_ess:.0f}")
    bound = f"lower bound of the lift {estimate.low:+.4f} at {1 - alpha:.0%}"
    if not estimate.low > -margin:
        reasons.append(f"{bound} is not above {-margin:+.4f}")
    if reasons:
        return Verdict(False, reasons, numbers)
    return Verdict(True, [f"{bound} is above {-margin:+.4f}"], numbers)
