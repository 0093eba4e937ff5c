"""Replay: what a policy that never ran would have earned on logged decisions, and whether the log can be believed.

The log may be a loop's interactions or an import. It is read three times: for its extent, for what reward models need,
and for the sums of the estimates, each time unit by unit in constant memory. Decisions fall into five folds by a hash
of their ids, and the reward model of a fold is fitted on the other four, so no row is predicted by a model that saw it;
that of the confidence sequence on the first fifth of the log's time, which the sequence leaves out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace as changed
from datetime import UTC, datetime
from operator import add
from typing import Annotated, TypeVar

import msgspec
import numpy as np
import pyarrow as pa

from decision.drift.segments import Found
from decision.errors import FieldError, SupportError, Words
from decision.ope.diagnostics.propensities import PropensityReport
from decision.ope.diagnostics.sample_size import Needed, rows_needed
from decision.ope.diagnostics.uniform_stratum import Agreement
from decision.ope.diagnostics.weights import Diagnostics
from decision.ope.estimate import Estimate
from decision.ope.estimators.registry import estimator_of
from decision.ope.estimators.snips import FEWEST
from decision.ope.evaluation.family import Plan
from decision.ope.evaluation.results import Results, refuse, results
from decision.options import Fraction, Seed
from decision.protocols import Policy
from decision.validation import Checked
from pipelines.engines.engine import Engine, LocalEngine
from pipelines.logs import step
from pipelines.progress import Progress, silent
from pipelines.replay.crossfit import FOLDS, CrossFit, Fitted
from pipelines.replay.fields import require_action_feature, require_label
from pipelines.replay.models import LEARNED, RewardModel, crossfit_of, reward_models
from pipelines.replay.passes import Evaluated, Job, evaluate_unit, extent_unit, fit_fold, merged, survey_unit
from pipelines.replay.policies.rules import Rules
from pipelines.replay.policy import PolicySpec, reads_features, spec_of
from pipelines.replay.propensities import check_propensities
from pipelines.replay.segments import found_in
from pipelines.replay.source import COLUMNS, Source, TableSource
from pipelines.replay.survey import CHECKED_COLUMNS, Extent, Survey

Part = TypeVar("Part")
MAX_REPLICATES = 100_000


class Options(Checked, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a replay is done.

    Attributes:
        reward_model: of the estimators that need one: ``vw`` or ``logistic`` on features, ``means`` per action,
            or ``none`` to leave them out.
        level: coverage of the intervals.
        check: test the log's propensities too.
        where: (name, value) of the one segment that is looked at.
        segment: name of the segments that are estimated apart.
        find_segments: search the contexts for segments in which the policy gains or loses otherwise than elsewhere.
        grouping: feature of actions that groups them, for MIPS and OffCEM.
        replicates: of the bootstrap; 0 for none.
        seed: of the bootstrap.
        low: smallest reward possible; None for the smallest seen.
        high: largest reward possible; None for the largest seen.
        force: keep the numbers of a log that cannot support them, beside the reasons.
        lift: a lift of which it is asked how many decisions it takes to see it; None for none.
    """

    reward_model: RewardModel = "vw"
    level: Fraction = 0.95
    check: bool = True
    where: tuple[str, str] | None = None
    segment: str | None = None
    find_segments: bool = False
    grouping: str | None = None
    replicates: Annotated[int, msgspec.Meta(ge=0, le=MAX_REPLICATES)] = 1_000
    seed: Seed = 0
    low: float | None = None
    high: float | None = None
    force: bool = False
    lift: Annotated[float, msgspec.Meta(ge=-1e12, le=1e12)] | None = None

    def _relations(self) -> None:
        if self.lift == 0:
            raise FieldError("lift", wanted="a number other than 0", got=self.lift)
        if self.replicates == 1:
            raise FieldError("replicates", wanted=f"0, or 2 to {MAX_REPLICATES}", got=1)


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """The confidence sequences up to one moment: they hold at all moments at once.

    Attributes:
        until: end of the stretch of time, ISO 8601 UTC.
        rows: decisions so far.
        low: lower end for the policy's value.
        high: upper end.
        lift_low: lower end for its lift over what drew the log.
        lift_high: upper end.
    """

    until: str
    rows: int
    low: float
    high: float
    lift_low: float
    lift_high: float


class Replay(msgspec.Struct, frozen=True, kw_only=True):
    """A replay.

    Attributes:
        log: name of the loop or import.
        policy: the evaluation policy, in words.
        rows: decisions it was replayed on.
        left_out: decisions of the log it was not, with the reason; "" where all were used.
        logged: mean logged reward: the value of whatever drew the log.
        estimates: by name; None where the log has no support or was refused.
        tuned: the parameter that SLOPE chose, by estimator.
        by_parameter: estimates by estimator and value of its parameter.
        bootstrap: percentile intervals by estimator.
        recommended: name of the estimate to read first; None when all were refused, or where rewards are so few that no
            interval holds.
        lift: how much more than the logged reward the policy earns, paired row by row: doubly robust, by weights alone
            without a reward model; None when refused.
        stratum: estimate from the decisions that were drawn uniformly, where there are such beside others.
        agreements: how far each estimate is from that, by name.
        apart: estimates that are further from the one to read first than both intervals allow.
        needed: decisions that it takes to see the lift that was asked for; None where none was, or when refused.
        trend: the confidence sequences as the log grew.
        segments: the policy's value by segment, with intervals that hold together; None where the segment's rows
            cannot support an estimate.
        found: what the search for segments found; None where none was asked for, or when refused.
        diagnostics: of the weights.
        unsupported: mean probability with which the policy does what the log never draws.
        propensities: whether the log's propensities can be believed; None when not asked.
        refused: why no estimate should be read from this log; empty when they may.
        trusted: nothing speaks against the estimates.
        reasons: what does, in words; those of single estimators are with them.
        first: time of the first decision, ISO 8601 UTC.
        last: of the last one.
        table_version: of the lake's table; None for anything else.
    """

    log: str
    policy: str
    rows: int
    left_out: str
    logged: Estimate
    estimates: dict[str, Estimate | None]
    tuned: dict[str, float]
    by_parameter: dict[str, dict[str, Estimate]]
    bootstrap: dict[str, tuple[float, float]]
    recommended: str | None
    lift: Estimate | None
    stratum: Estimate | None
    agreements: dict[str, Agreement]
    apart: list[str]
    needed: Needed | None
    trend: list[Point]
    segments: dict[str, Estimate | None]
    found: Found | None
    diagnostics: Diagnostics
    unsupported: float
    propensities: PropensityReport | None
    refused: list[str]
    trusted: bool
    reasons: list[str]
    first: str
    last: str
    table_version: int | None = None

    def metrics(self) -> dict[str, float]:
        """Return the numbers, named for a tracking store."""
        numbers = {"replay.logged": self.logged.value, "replay.rows": float(self.rows)}
        for name, estimate in self.estimates.items():
            if estimate is not None:
                ends = {"": estimate.value, "_low": estimate.low, "_high": estimate.high}
                numbers |= {f"replay.{name}{part}": value for part, value in ends.items()}
        numbers |= {"replay.ess": self.diagnostics.ess, "replay.mean_weight": self.diagnostics.mean_weight}
        return {name: float(value) for name, value in numbers.items() if np.isfinite(value)}


def replay(
    rows: pa.Table,
    policy: Policy,
    *,
    log: str,
    policy_name: str,
    reward_model: RewardModel = "vw",
    level: float = 0.95,
    check: bool = True,
    left_out: str = "",
    force: bool = False,
) -> Replay:
    """Evaluate `policy` on logged decisions at hand.

    Args:
        rows: settled decisions with the lake's interaction columns.
        policy: the evaluation policy.
        log: name of the loop or import.
        policy_name: the policy in words.
        reward_model: see `Options`.
        level: coverage of the intervals.
        check: test the log's propensities too.
        left_out: decisions that were left out of `rows` and why.
        force: keep the numbers of a log that cannot support them, beside the reasons.

    Raises:
        SupportError: there are no rows.
        FieldError: a propensity is not in (0, 1].
    """
    options = Options(reward_model=reward_model, level=level, check=check, force=force)
    return replay_log(TableSource(rows), spec_of(policy, policy_name), options, log=log, left_out=left_out)


@step("replayed")
def replay_log(
    source: Source,
    policy: PolicySpec,
    options: Options,
    *,
    log: str,
    left_out: str = "",
    engine: Engine | None = None,
    generations: dict[str, PolicySpec] | None = None,
    progress: Progress = silent,
) -> Replay:
    """Evaluate a policy on a log of any size.

    Args:
        source: where the rows are.
        policy: the evaluation policy.
        options: how.
        log: name of the loop or import.
        left_out: decisions that were left out and why.
        engine: who does the work; None for this process.
        generations: the policies that drew the log by version, for balanced weights; None to leave them out.
        progress: told of each look at the log and of the decisions it has seen.

    Raises:
        SupportError: there are no rows.
        FieldError: a row does not fit, or a setting.
    """
    engine = engine or LocalEngine()
    loaded = policy.load()
    looks = reads_features(loaded)
    job = Job(
        source=source,
        policy=policy,
        where=options.where,
        segment=options.segment,
        grouping=options.grouping,
        sampled=COLUMNS if options.reward_model in LEARNED else CHECKED_COLUMNS if options.check else (),
        robust=options.reward_model != "none",
        searched=options.find_segments,
        features=looks or options.find_segments or options.reward_model in LEARNED or bool(generations),
    )
    for label, setting in ((options.where and options.where[0], "where"), (options.segment, "segment")):
        if label:
            require_label(source, label, setting=setting)
    if isinstance(loaded, Rules):  # a slip in a name would be a condition that never holds
        for name in loaded.context:
            require_label(source, name, setting="policy")
        for name in loaded.features:
            require_action_feature(source, name.partition(".")[0], setting="policy")
    if options.grouping:
        require_action_feature(source, options.grouping, setting="group_by")
    extent = engine.total(extent_unit, add, job, source.units(), _counted("decisions found", None, progress, _rows))
    if extent is None or not extent.rows:
        raise _nothing(log, job)
    job = changed(job, extent=extent)
    survey = (
        engine.total(
            survey_unit, add, job, source.units(), _counted("decisions surveyed", extent.rows, progress, _rows)
        )
        or Survey()
    )
    sample = survey.sampled()
    survey = changed(survey, sample=())  # not held twice
    fitted = _fitted(crossfit_of(sample, options.reward_model), job, engine, progress)
    models = None if options.reward_model == "none" else reward_models(survey, fitted)
    drawn = {name: rows for name, rows in survey.versions.items() if generations and name in generations}
    job = changed(
        job,
        plan=_plan(extent, options),
        models=models,
        generations=tuple((generations or {})[name] for name in drawn)
        if drawn.keys() == survey.versions.keys()
        else (),
        drawn=tuple(drawn.values()),
    )
    evaluated = engine.total(
        evaluate_unit, merged, job, source.units(), _counted("decisions evaluated", extent.rows, progress, _evaluated)
    )
    if evaluated is None:
        raise _nothing(log, job)
    report = check_propensities(sample) if options.check else None
    return _replay(evaluated, job, options, report, log=log, left_out=left_out)


def _fitted(crossfit: CrossFit | None, job: Job, engine: Engine, progress: Progress) -> Fitted | None:
    if crossfit is None:
        return None
    seen = _counted("reward models fitted", FOLDS, progress, _folds)
    if isinstance(engine, LocalEngine):  # whose threads would wait for one another
        return crossfit.models(engine.workers, seen)
    return engine.total(fit_fold, add, changed(job, crossfit=crossfit), range(FOLDS), seen)


def _counted(look: str, total: int | None, progress: Progress, of: Callable[[Part], int]) -> Callable[[Part], None]:
    """Return what tells of a look as its parts arrive; `of` says how much a part counts."""
    done = 0
    progress(look, done, total)

    def seen(part: Part) -> None:
        nonlocal done
        done += of(part)
        progress(look, done, total)

    return seen


def _rows(part: Extent | Survey) -> int:
    return part.rows


def _folds(part: Fitted) -> int:
    return len(part.constant)


def _evaluated(part: Evaluated | None) -> int:
    return 0 if part is None else part.sums.support.n


def _nothing(log: str, job: Job) -> Exception:
    cut = job.source.cut
    when = "" if cut.since is None and cut.until is None else " in that range of time"
    if job.where is not None:
        return FieldError("where", wanted=f"a value that some decision has{when}", got=Words("=".join(job.where)))
    return SupportError(f"{log}: there are no settled decisions to replay{when}")


def _plan(extent: Extent, options: Options) -> Plan:
    low = extent.low if options.low is None else options.low
    high = extent.high if options.high is None else options.high
    return Plan(
        low=low,
        high=high if high > low else low + (abs(low) or 1.0),  # all rewards are the same
        model=options.reward_model != "none",
        robust=options.reward_model != "none",
        logging=extent.whole == extent.rows,
        grouped=options.grouping is not None and extent.whole == extent.rows,
        bootstrap=1_024 if options.replicates else 0,
        buckets=0 if extent.counted else 60,
    )


def _replay(
    evaluated: Evaluated, job: Job, options: Options, report: PropensityReport | None, *, log: str, left_out: str
) -> Replay:
    sums, extent = evaluated.sums, job.extent
    plan = job.plan
    if plan is None:
        raise ValueError("a job without a plan was not evaluated")
    found = results(sums, plan, level=options.level, count=options.replicates, seed=options.seed)
    estimates = {**found.estimates, **_balanced(evaluated, plan, options)}
    damaged = [] if report is None else [f"propensities: {reason}" for reason in report.reasons]
    refused = [*found.refused, *damaged]
    if refused and not options.force:
        found = refuse(found, *damaged)
        estimates = dict.fromkeys(estimates)
    diagnostics = sums.tally.diagnostics(sums.support)
    apart = [name for name, one in found.agreements.items() if not one.agrees and not estimator_of(name).biased]
    doubts = [*sums.support.doubts(), *_rare(found)]
    if apart:
        doubts.append(f"further from the uniformly drawn decisions than chance allows: {', '.join(apart)}")
    reasons = [*refused, *(doubt for doubt in doubts if not refused)]
    return Replay(
        log=log,
        policy=job.policy.name,
        rows=extent.rows,
        left_out=left_out,
        logged=found.logged,
        estimates=estimates,
        tuned=found.tuned,
        by_parameter={name: {f"{tau:g}": e for tau, e in of.items()} for name, of in found.by_parameter.items()},
        bootstrap=found.bootstrap,
        recommended=None if refused else found.recommended,
        lift=found.lift,
        stratum=found.stratum,
        agreements=found.agreements,
        apart=found.apart,
        needed=_needed(found, options, extent.rows),
        trend=_trend(found, job),
        segments=found.segments,
        found=_searched(evaluated, options, extent)
        if options.find_segments and (options.force or not refused)
        else None,
        diagnostics=diagnostics,
        unsupported=found.unsupported,
        propensities=report,
        refused=refused,
        trusted=not reasons,
        reasons=reasons,
        first=_iso(extent.first),
        last=_iso(extent.last),
        table_version=getattr(job.source, "version", None),
    )


def _searched(evaluated: Evaluated, options: Options, extent: Extent) -> Found:
    return found_in(evaluated.kept, level=options.level, counted=extent.counted)


def _needed(found: Results, options: Options, rows: int) -> Needed | None:
    if options.lift is None or found.lift is None:
        return None
    logged, lift = found.errors
    return rows_needed(options.lift, rows=rows, lift_error=lift, logged_error=logged, level=options.level)


def _rare(found: Results) -> list[str]:
    if found.rewarded >= FEWEST:
        return []
    few = f"the estimates rest on {found.rewarded:.1f} rewarded decisions, fewer than {FEWEST:.0f}"
    if found.estimates.get("sequence") is None:
        return [f"{few}: no interval holds"]
    return [f"{few}: only that of sequence, which knows the bounds of rewards, holds"]


def _balanced(evaluated: Evaluated, plan: Plan, options: Options) -> dict[str, Estimate | None]:
    if evaluated.balanced is None:
        return {}
    alone = Plan(low=plan.low, high=plan.high, model=plan.model, bootstrap=0, buckets=0)
    found = results(evaluated.balanced, alone, level=options.level, count=0).estimates
    return {f"balanced_{name}": found[name] for name in ("ips", "snips", "dr") if name in found}


def _trend(found: Results, job: Job) -> list[Point]:
    plan, extent = job.plan, job.extent
    if plan is None:
        return []
    span = extent.last - extent.cut + 1
    return [
        Point(
            until=_iso(extent.cut + (moment.stretch + 1) * span // plan.buckets),
            rows=moment.rows,
            low=moment.value[0],
            high=moment.value[1],
            lift_low=moment.lift[0],
            lift_high=moment.lift[1],
        )
        for moment in found.moments
    ]


def _iso(microseconds: int) -> str:
    return datetime.fromtimestamp(microseconds / 1e6, UTC).isoformat(timespec="seconds")
