"""From the sums of a log to what an analyst reads: estimates with their intervals, tuned, or the reason for none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import hypot

import numpy as np

from decision.batch import Floats
from decision.ope.diagnostics.refusals import LEAST_ESS, refusals
from decision.ope.diagnostics.uniform_stratum import Agreement, agreement
from decision.ope.estimate import Estimate
from decision.ope.estimators.registry import Mean, OwnSums, Tuned
from decision.ope.estimators.snips import FEWEST, rewarded
from decision.ope.evaluation.family import PARAMETERS, Plan, planned
from decision.ope.evaluation.sums import EvaluationSums, sequence_of
from decision.ope.intervals.bootstrap import GroupSums, percentiles, replicates
from decision.ope.intervals.simultaneous import simultaneous
from decision.ope.selection.slope import slope
from decision.ope.sums.exact import rounded

_TUNING_LEVEL = 0.95
BIASED = "its interval leaves out what is lost where weights are cut"


@dataclass(frozen=True, slots=True)
class Moment:
    """A confidence sequence up to one moment.

    Attributes:
        stretch: number of the stretch of time.
        rows: decisions so far.
        value: ends for the policy's value.
        lift: ends for its lift over the policy that drew the log.
    """

    stretch: int
    rows: int
    value: tuple[float, float]
    lift: tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """What a log says about a policy.

    Attributes:
        logged: mean logged reward.
        estimates: by name in a fixed order; None where the log has no support.
        tuned: the parameter that SLOPE chose, by estimator.
        by_parameter: estimates at every value of the parameter, by estimator.
        bootstrap: percentile intervals by estimator.
        moments: the confidence sequences as they grew.
        segments: the policy's value by segment, with intervals that hold together; None where the segment's rows
            cannot support an estimate.
        refused: why no estimate should be read; empty when they may.
        rewarded: effective number of decisions that the rewards come from, `decision.ope.estimators.snips.rewarded`.
        recommended: name of the estimate to read first; None where no interval can be believed.
        unsupported: mean probability with which the policy does what the log never draws.
        stratum: IPS on the rows that were drawn uniformly, where they are 30 or more and not all.
        agreements: how far each estimate is from that, by name.
        apart: estimates that are further from the one to read first than both intervals allow.
        errors: standard errors of `logged` and `lift`.
    """

    logged: Estimate
    estimates: dict[str, Estimate | None]
    tuned: dict[str, float] = field(default_factory=dict)
    by_parameter: dict[str, dict[float, Estimate]] = field(default_factory=dict)
    bootstrap: dict[str, tuple[float, float]] = field(default_factory=dict)
    moments: list[Moment] = field(default_factory=list)
    segments: dict[str, Estimate | None] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    rewarded: float = 0.0
    recommended: str | None = None
    unsupported: float = 0.0
    stratum: Estimate | None = None
    lift: Estimate | None = None
    agreements: dict[str, Agreement] = field(default_factory=dict)
    apart: list[str] = field(default_factory=list)
    errors: tuple[float, float] = (np.inf, np.inf)

    @property
    def anytime(self) -> tuple[float, float] | None:
        """The confidence sequence of the value at the end of the log."""
        return self.moments[-1].value if self.moments else None

    @property
    def anytime_lift(self) -> tuple[float, float] | None:
        """The confidence sequence of the lift at the end of the log."""
        return self.moments[-1].lift if self.moments else None


def results(sums: EvaluationSums, plan: Plan, *, level: float = 0.95, count: int = 1_000, seed: int = 0) -> Results:
    """Return what the sums of a whole log say.

    Args:
        sums: of all shards.
        plan: that they were made with.
        level: coverage of the intervals.
        count: bootstrap replicates.
        seed: of the bootstrap.

    Raises:
        SupportError: there are no rows.
    """
    family = planned(plan)
    by_parameter = {
        name: {tau: sums.mean(f"{name}@{tau:g}").estimate(level) for tau in PARAMETERS}
        for name, one in family.items()
        if isinstance(one, Tuned)
    }
    # What is chosen should not move with the level that is asked for.
    tuned = {
        name: slope({tau: sums.mean(f"{name}@{tau:g}").estimate(_TUNING_LEVEL) for tau in found})
        for name, found in by_parameter.items()
    }
    found: dict[str, Estimate | None] = {}
    for name, one in family.items():
        if isinstance(one, OwnSums):
            found[name] = one.estimate(sums.others[name], level=level)
        elif isinstance(one, Tuned):
            # SLOPE trades bias for spread; the interval knows of the spread alone.
            found[name] = _doubted(by_parameter[name][tuned[name]], BIASED)
        else:
            found[name] = _doubted(sums.mean(name).estimate(level), one.doubt)
    unsupported = sums.tally.unsupported_share
    stratum = sums.stratum.estimate(level) if LEAST_ESS <= sums.stratum.n < sums.support.n else None
    moments = _moments(sums, plan, level)
    counted = rewarded(sums.others["snips"], low=plan.low, high=plan.high)
    if counted < FEWEST and (bounded := _bounded(sums, plan, level)):
        found["sequence"] = bounded
    there = {name: estimate for name, estimate in found.items() if estimate is not None and name != "sequence"}
    share = sums.stratum.n / max(sums.support.n, 1)
    refused = refusals(sums.support, unsupported)
    recommended = None if refused else _first(found, counted)
    apart = [] if recommended is None else _apart(there, recommended, found[recommended])
    for name in apart:
        found[name] = _doubted(there[name], f"further from {recommended} than both intervals allow")
    return Results(
        logged=sums.mean("logged").estimate(level),
        estimates=found,
        tuned=tuned,
        by_parameter=by_parameter,
        bootstrap=_bootstrap(sums, plan, tuned, level, count, seed),
        moments=moments,
        segments=_segments(sums, level),
        refused=refused,
        rewarded=counted,
        recommended=recommended,
        unsupported=unsupported,
        stratum=stratum,
        lift=sums.mean("lift").estimate(level),
        agreements={} if stratum is None else agreement(stratum, there, share=share),
        apart=apart,
        errors=(sums.mean("logged").error, sums.mean("lift").error),
    )


def _apart(there: Mapping[str, Estimate], name: str, first: Estimate | None) -> list[str]:
    """Return the estimates that are hardly right together with the one to read first.

    The sides of both intervals that face one another are added as if the estimates were independent. They come from
    the same rows and mostly move together, so that their difference varies less: two that are right are seldom told
    apart.
    """
    if first is None:
        return []
    out: list[str] = []
    for other, one in there.items():
        low, high = (one, first) if one.value < first.value else (first, one)
        if other != name and high.value - low.value > hypot(low.high - low.value, high.value - high.low):
            out.append(other)
    return out


def _first(found: Mapping[str, Estimate | None], counted: float) -> str | None:
    # The tuned ones are closer to the truth on average, but only DR's interval knows all of its error; where rewards
    # are few, none does that does not know their bounds.
    if counted < FEWEST:
        return "sequence" if "sequence" in found else None
    return "snips" if found.get("dr") is None else "dr"


def _bounded(sums: EvaluationSums, plan: Plan, level: float) -> Estimate | None:
    """Return the confidence sequence at the end of the log as an estimate; None without one."""
    if sums.trend is None:
        return None
    whole = sequence_of(sums.trend, plan, lift=False)
    if not whole.n:
        return None
    low, high = whole.interval(level)
    value = plan.low + (plan.high - plan.low) * rounded(whole.lower[0]) / whole.n
    return Estimate(min(max(value, low), high), low, high, level, whole.n, sums.support.ess)


def _doubted(found: Estimate, reason: str | None) -> Estimate:
    return found if reason is None else replace(found, reasons=(*found.reasons, reason))


def refuse(found: Results, *reasons: str) -> Results:
    """Return `found` with every number taken out that rests on weights the log cannot support, and the reasons."""
    return replace(
        found,
        estimates=dict.fromkeys(found.estimates),
        recommended=None,
        tuned={},
        by_parameter={},
        bootstrap={},
        moments=[],
        segments={},
        stratum=None,
        lift=None,
        agreements={},
        apart=[],
        refused=[*found.refused, *reasons],
    )


def _bootstrap(
    sums: EvaluationSums, plan: Plan, tuned: Mapping[str, float], level: float, count: int, seed: int
) -> dict[str, tuple[float, float]]:
    if sums.groups is None or count < 2:
        return {}
    family = planned(plan)
    wanted = {name: f"{name}@{tau:g}" for name, tau in tuned.items()}
    wanted |= {name: name for name, one in family.items() if isinstance(one, Mean)} | {"logged": "logged"}
    unwanted = {f"{name}@{tau:g}" for name in tuned for tau in PARAMETERS} - set(wanted.values()) | {"lift"}
    needed = [name for name in sums.columns if name not in unwanted]
    at = [sums.columns.index(name) for name in needed]
    groups = GroupSums(sums.groups.exact.rows(at))
    drawn = dict(zip(needed, replicates(groups.sums, np.random.default_rng(seed), count).T, strict=True))
    with np.errstate(divide="ignore", invalid="ignore"):
        values: dict[str, Floats] = {name: drawn[column] / drawn["one"] for name, column in wanted.items()}
        for name, one in family.items():
            if isinstance(one, OwnSums) and one.replicate is not None:
                values[name] = one.replicate(drawn)
    return {name: percentiles(column, level) for name, column in values.items()}


def _segments(sums: EvaluationSums, level: float) -> dict[str, Estimate | None]:
    found = simultaneous(sums.segments, level=level)
    return {name: None if refusals(sums.segments[name].support, 0.0) else one for name, one in found.items()}


def _moments(sums: EvaluationSums, plan: Plan, level: float) -> list[Moment]:
    if sums.trend is None:
        return []
    out: list[Moment] = []
    for stretch in range(sums.trend.shape[1]):
        if not sums.trend[0, stretch]:
            continue
        so_far = sums.trend[:, : stretch + 1]
        value = sequence_of(so_far, plan, lift=False)
        lift = sequence_of(so_far, plan, lift=True)
        out.append(Moment(stretch, value.n, value.interval(level), lift.interval(level)))
    return out
