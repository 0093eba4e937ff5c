"""The promotion gate: a verdict on paired lifts, with its reasons in words.

A version replaces the champion when it is shown to keep most of what was gained. The margin has no unit: what the
version has to beat is the champion *diluted*, a share of whose decisions is given back to the baseline, so what may be
lost is that share of what the champion gains over the baseline (retention of an effect: Rothmann, Li, Chen, Chi,
Temple, Tsou 2003). Where nothing is gained over the baseline yet, nothing may be lost: a version has to be better.

Small losses must not add up. So a version is held to the same share of the last version that was *proven*: whose lower
bound over the one proven before it lay above 0. However many follow that are each a little worse, all of them
together spend that one margin, until the next one is proven.

All verdicts against one reference share the error probability: those on one champion while it is in charge, those on
one proven version until the next. Half of it goes by their number, half by their number among the likely ones, in which
the version's own reward model predicts a lift large enough to pass. The k-th one of either has 1 / (k (k + 1)) of the
half, which sums to it. Of the rewards that the verdict reads, a prediction knows no more than how far they lie from the
model. So the error stays what it is, and versions without a prospect spend little of what a gain needs (weighted tests:
Genovese, Roeder, Wasserman 2006; over time: Foster and Stine 2008).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist

from decision.errors import FieldError
from decision.ope.estimate import Estimate
from decision.options import Count, ErrorRate, NotNegative
from decision.validation import check_value

Level = Callable[..., Estimate]
"""level -> two-sided estimate of a lift, see `decision.ope.estimators.lift.Lift.estimate`."""


@dataclass(frozen=True, slots=True)
class Reference:
    """What a version is held to.

    Attributes:
        name: which, in words.
        lift: over the reference.
        kept: over the diluted reference; None where it is the baseline itself.
        switched: over the reference, of `decision.ope.estimators.lift.switched_lift_of`; None to go without.
        predicted: the larger of the two lifts that could pass, as the version's reward model predicts them, in standard
            errors (`decision.ope.diagnostics.predicted_lift`); None where nobody says: then every verdict is likely.
        look: number of the verdict among all against this reference, from 1.
        likely: number it has among the likely ones, should it be one, from 1.
    """

    name: str
    lift: Level
    kept: Level | None = None
    switched: Level | None = None
    predicted: float | None = None
    look: int = 1
    likely: int = 1


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the gate says.

    Attributes:
        promote: whether the new version may take over.
        reasons: why, or why not.
        numbers: what the verdict rests on.
        proven: whether it is also shown to be better than the last proven version, and takes its place.
    """

    promote: bool
    reasons: list[str]
    numbers: dict[str, float] = field(default_factory=dict)
    proven: bool = False


def spent(alpha: float, look: int, likely: int | None) -> float:
    """Return the error probability of a verdict; all of those against one reference have `alpha` at most.

    Args:
        alpha: of all.
        look: its number, from 1.
        likely: its number among those that were likely to promote, from 1; None where it is not.
    """
    by_likely = 0.0 if likely is None else 1.0 / (likely * (likely + 1))
    return 0.5 * alpha * (1.0 / (look * (look + 1)) + by_likely)


def judge(
    references: Sequence[Reference],
    *,
    alpha: float,
    minimum_ess: float,
    margin: float | None = None,
) -> Verdict:
    """Promote a version that keeps what every reference has gained, or that two estimates show to be better.

    The first way: the one-sided lower bound of the unbiased lift over the diluted reference lies above 0. It takes many
    rows to see an improvement of a few thousandths so. The second: the lower bound of `switched`, which is narrow but
    leans on the reward model, lies above 0, and the unbiased lift does not contradict it: `switched` is not above its
    upper bound. It proves nothing: the place of the last proven version is taken by the first way alone.

    Args:
        references: the policy in charge, then, where it is another one, the last proven version; one or two.
        alpha: error probability of the one-sided bounds against one reference, in (0, .5).
        minimum_ess: effective sample size below which the answer is no.
        margin: in place of the share of the gain, so many reward units may be lost, >= 0.

    Raises:
        FieldError: a setting is outside its range, or there is no reference.
    """
    check_value("alpha", alpha, ErrorRate)
    if margin is not None:
        check_value("margin", margin, NotNegative)
    if not references:
        raise FieldError("references", wanted="the policy in charge at least", got=0)
    for reference in references:
        check_value("look", reference.look, Count)
        check_value("likely", reference.likely, Count)
    found = [_held(reference, alpha, margin) for reference in references]
    first = found[0].estimate
    numbers = {"lift": first.value, "lower_bound": first.low, "ess": first.ess, "rows": float(first.n)}
    for prefix, one in zip(("", "proven_"), found, strict=False):
        numbers |= {f"{prefix}{name}": number for name, number in one.numbers.items()}
    if len(found) > 1:
        numbers |= {"proven_lift": found[1].estimate.value, "proven_lower_bound": found[1].estimate.low}
    enough = first.ess >= minimum_ess
    numbers["judged"] = float(enough)  # weights alone decide this: without it no error is spent
    reasons = [] if enough else [f"effective sample size {first.ess:.0f} is below {minimum_ess:.0f}"]
    refused = [reason for one in found if not one.passes for reason in one.reasons]
    promote = enough and not refused
    proven = promote and found[-1].estimate.low > 0.0
    if promote:
        reasons = [reason for one in found for reason in one.reasons]
        reasons += [f"proven better than {references[-1].name}"] if proven else []
    else:
        reasons += refused
    return Verdict(promote, reasons, numbers | {"proven": float(proven)}, proven)


@dataclass(frozen=True, slots=True)
class _Held:
    passes: bool
    estimate: Estimate
    reasons: list[str]
    numbers: dict[str, float]


def _held(reference: Reference, alpha: float, margin: float | None) -> _Held:
    error, likely = spent(alpha, reference.look, reference.likely), True
    if reference.predicted is not None and margin is None:
        likely = reference.predicted >= NormalDist().inv_cdf(1.0 - error)
        error = error if likely else spent(alpha, reference.look, None)
    level = 1.0 - 2.0 * error
    estimate = reference.lift(level=level)
    kept = estimate if reference.kept is None or margin is not None else reference.kept(level=level)
    lost = margin if margin is not None else max(kept.value - estimate.value, 0.0)
    numbers = {"margin": lost, "kept_lower_bound": kept.low}
    numbers |= {"look": float(reference.look), "likely": float(likely), "alpha": error}
    numbers |= {} if reference.predicted is None else {"predicted": reference.predicted}
    needed = 0.0 if margin is None else -margin
    end = "," if "," in reference.name else ""  # "champion, version 3" is one name
    shift = f", plus a margin of {lost:.4g}," if kept is not estimate and f"{lost:.4g}" != "0" else end
    bound = f"the lift over {reference.name}{shift} is {_at_least(kept.low, level)}"
    wanted = f"{needed:+.4g}" if needed else "0"
    if kept.low > needed:
        return _Held(True, estimate, [f"{bound}: that is above {wanted}"], numbers)
    reasons = [f"{bound}: that is not above {wanted}", *_rare(estimate)]
    if reference.switched is None:
        return _Held(False, estimate, reasons, numbers)
    narrow = reference.switched(level=level)
    numbers |= {"switched_lift": narrow.value, "switched_lower_bound": narrow.low, "upper_bound": estimate.high}
    shown = f"by Switch-DR, which leans on the reward model, the lift over {reference.name}{end} is"
    if not narrow.low > 0.0:
        told = f"{shown} {_at_least(narrow.low, level)}: that is not above 0"
        return _Held(False, estimate, [*reasons, told], numbers)
    if not narrow.value <= estimate.high:
        against = f"{shown} {narrow.value:+.4g}, but without the model it is no more than {estimate.high:+.4g}"
        return _Held(False, estimate, [*reasons, against], numbers)
    told = f"{shown} {_at_least(narrow.low, level)}: that is above 0, and the unbiased lift does not contradict it"
    return _Held(True, estimate, [told], numbers)


def _at_least(low: float, level: float) -> str:
    return f"at least {low:+.4g}, with {50 * (1 + level):.4g} % confidence"


def _rare(estimate: Estimate) -> list[str]:
    return [reason for reason in estimate.reasons if "rewarded" in reason]
