"""The promotion gate: a verdict on a paired lift, with its reasons in words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from decision.ope.estimate import Estimate
from decision.options import ErrorRate, NotNegative
from decision.validation import check_value


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


def judge(
    lift: Callable[..., Estimate],
    *,
    alpha: float,
    margin: float,
    minimum_ess: float,
    switched: Callable[..., Estimate] | None = None,
) -> Verdict:
    """Promote a version that is proven to be no worse, or that two estimates together show to be better.

    The first way: the one-sided lower bound of the unbiased lift lies above minus `margin`. It takes many rows to see
    an improvement of a few thousandths so. The second: the lower bound of `switched`, which is narrow but leans on the
    reward model, lies above 0, and the unbiased lift does not contradict it: `switched` is not above its upper bound.

    Args:
        lift: level -> two-sided estimate of the lift, see `decision.ope.estimators.lift.Lift.estimate`.
        alpha: error probability of the one-sided bounds, in (0, .5).
        margin: reward units by which the bound may lie below zero, >= 0.
        minimum_ess: effective sample size below which the answer is no.
        switched: the same of `decision.ope.estimators.lift.switched_lift_of`; None to go by `lift` alone.

    Raises:
        FieldError: a setting is outside its range.
    """
    check_value("alpha", alpha, ErrorRate)
    check_value("margin", margin, NotNegative)
    level = 1.0 - 2.0 * alpha
    estimate = lift(level=level)
    numbers = {"lift": estimate.value, "lower_bound": estimate.low, "ess": estimate.ess, "rows": float(estimate.n)}
    enough = estimate.ess >= minimum_ess
    reasons = [] if enough else [f"effective sample size {estimate.ess:.0f} is below {minimum_ess:.0f}"]
    bound = f"lower bound of the lift {estimate.low:+.4f} at {1 - alpha:.0%}"
    if estimate.low > -margin:
        return Verdict(enough, reasons or [f"{bound} is above {-margin:+.4f}"], numbers)
    reasons.append(f"{bound} is not above {-margin:+.4f}")
    if switched is not None:
        narrow = switched(level=level)
        numbers |= {"switched_lift": narrow.value, "switched_lower_bound": narrow.low, "upper_bound": estimate.high}
        shown = f"lower bound of the switched lift {narrow.low:+.4f}"
        if enough and narrow.low > 0.0 and narrow.value <= estimate.high:
            return Verdict(True, [f"{shown} is above 0, and the unbiased lift does not contradict it"], numbers)
        if narrow.low > 0.0 and not narrow.value <= estimate.high:
            reasons.append(f"the switched lift {narrow.value:+.4f} lies above the upper bound {estimate.high:+.4f}")
        elif not narrow.low > 0.0:
            reasons.append(f"{shown} is not above 0")
    return Verdict(False, reasons, numbers)
