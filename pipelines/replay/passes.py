"""The three looks that a replay takes at every unit of a log: its extent, the survey, and the evaluation.

Between the last two, reward models are fitted fold by fold.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import pyarrow as pa

from decision.batch import Floats, Interactions
from decision.features import VERSION
from decision.ope.estimators.balanced import balanced
from decision.ope.evaluation.family import Plan, Shard
from decision.ope.evaluation.sums import EvaluationSums, evaluation_sums
from decision.ope.rows import Rows
from decision.policy import features_version_of
from decision.protocols import Oracle
from pipelines.replay.crossfit import CrossFit, Fitted
from pipelines.replay.models import Predicted, RewardModels
from pipelines.replay.policies.functions import ReadsRows
from pipelines.replay.policy import OneAtATime, PolicySpec, Tested, pmf_of, reads_features
from pipelines.replay.rows import Loaded, action_groups, group_of_hash, labels_of, load, matching_rows
from pipelines.replay.segments import Kept, kept_of
from pipelines.replay.source import COLUMNS, FLAT, Source
from pipelines.replay.survey import EXTENT_COLUMNS, Extent, Survey, extent_of, survey_of

_CONTEXT = ("context", "feature_snapshot")
_PLAIN = tuple(name for name in COLUMNS if name not in (*_CONTEXT, *FLAT, "actions", "seed", "state", "reward_version"))
"""What is read of a log when nobody looks at features."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, weakref_slot=True)
class Job:
    """A replay as it is sent to whoever does a part of it.

    Attributes:
        source: the log.
        policy: the policy under test.
        where: (name, value) of a segment that alone is looked at; None for the whole log.
        segment: name of the segments that are estimated apart; None for none.
        grouping: feature of actions that groups them, for MIPS and OffCEM; None for none.
        sampled: columns of the sample of rows that the survey keeps; none for no sample.
        robust: whether the survey weighs rows for MRDR.
        features: whether somebody reads features.
        searched: whether rows are kept to search segments in.
        generations: policies that drew the log, for balanced weights; empty to leave them out.
        extent: of the log, once known.
        crossfit: what reward models are fitted on, while they are.
        plan: of the evaluation, once known.
        models: reward models, once fitted; None without.
        drawn: decisions that each generation drew.
    """

    source: Source
    policy: PolicySpec
    where: tuple[str, str] | None = None
    segment: str | None = None
    grouping: str | None = None
    sampled: tuple[str, ...] = ()
    robust: bool = False
    features: bool = False
    searched: bool = False
    generations: tuple[PolicySpec, ...] = ()
    extent: Extent = field(default_factory=Extent)
    crossfit: CrossFit | None = None
    plan: Plan | None = None
    models: RewardModels | None = None
    drawn: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Evaluated:
    """The sums of some rows; `+` merges them.

    Attributes:
        sums: with the logged propensities.
        balanced: with those of the mixture of all generations; None without.
        kept: some of the rows, to search segments in; none where nobody asked.
    """

    sums: EvaluationSums
    balanced: EvaluationSums | None
    kept: tuple[Kept, ...] = ()

    def __add__(self, other: Evaluated) -> Evaluated:
        mixed = None if self.balanced is None or other.balanced is None else self.balanced + other.balanced
        return Evaluated(self.sums + other.sums, mixed, self.kept + other.kept)


def extent_unit(job: Job, unit: int) -> Extent:
    """Return the extent of a unit of the log."""
    total = Extent()
    for table in _tables(job, unit, EXTENT_COLUMNS if job.source.whole(unit) else (*EXTENT_COLUMNS, "pmf")):
        total += extent_of(table)
    return total


def survey_unit(job: Job, unit: int) -> Survey:
    """Return the survey of a unit of the log."""
    ready = _ready(job)
    policy = ready.policy if job.robust else None
    features = job.robust and ready.reads_features
    total = Survey()
    wanted = COLUMNS if features else tuple(dict.fromkeys((*_PLAIN, *job.sampled)))
    for table in _tables(job, unit, _read(job, unit, wanted)):
        loaded = load(table, features=features, counted=job.extent.counted)
        total += survey_of(loaded, job.extent, policy, sampled=job.sampled)
    return total


def fit_fold(job: Job, fold: int) -> Fitted:
    """Return the learned reward model of a fold."""
    if job.crossfit is None:
        raise ValueError("a job without rows to learn from has no model")
    return job.crossfit.model(fold)


def evaluate_unit(job: Job, unit: int) -> Evaluated | None:
    """Return the sums of a unit of the log; None when no row of it is looked at."""
    if job.plan is None:
        raise ValueError("a job without a plan cannot be evaluated")
    policy, _, generations, oracles = _ready(job)
    total: Evaluated | None = None
    for table in _tables(job, unit, _needed(job, unit)):
        loaded = load(table, features=job.features, counted=job.extent.counted)
        pmf = pmf_of(policy, loaded.table, loaded.interactions)
        predicted = None if job.models is None else job.models.predict(loaded, oracles)
        shard = _shard(job, job.plan, loaded, pmf, predicted)
        mixed = _balanced(job, job.plan, loaded, generations, shard.rows) if generations else None
        kept: tuple[Kept, ...] = ()
        if job.searched:
            kept = (kept_of(loaded, shard.rows, rows_of_log=job.extent.rows, model=job.plan.model),)
        part = Evaluated(evaluation_sums(shard, job.plan), mixed, kept)
        total = part if total is None else total + part
    return total


def merged(one: Evaluated | None, other: Evaluated | None) -> Evaluated | None:
    """Return the sums of both; None for those of no rows."""
    return one + other if one is not None and other is not None else one if other is None else other


class _Ready(NamedTuple):
    """What a thread computes with."""

    policy: Tested
    reads_features: bool
    generations: list[Tested]
    oracles: tuple[Oracle | None, ...]


_prepared: WeakKeyDictionary[Job, dict[int, _Ready]] = WeakKeyDictionary()


def _ready(job: Job) -> _Ready:
    """Return the policies and models of a job: loaded once by every thread, since oracles keep what they have seen."""
    threads = _prepared.setdefault(job, {})
    here = threading.get_ident()
    if here not in threads:
        policy = job.policy.load()
        features = reads_features(policy)
        if features and job.policy.kind in ("python", "object") and not isinstance(policy, ReadsRows):
            policy = OneAtATime(policy)
        oracles = job.models.loaded_oracles() if job.models is not None and job.plan is not None else ()
        threads[here] = _Ready(policy, features, [spec.load() for spec in job.generations], oracles)
    return threads[here]


def _needed(job: Job, unit: int) -> tuple[str, ...]:
    read = _read(job, unit, COLUMNS) if job.features else _PLAIN
    named = () if job.segment is None else ("context",)
    return tuple(dict.fromkeys((*read, *named, *(() if job.grouping is None else ("actions",)))))


def _read(job: Job, unit: int, columns: tuple[str, ...]) -> tuple[str, ...]:
    """Return `columns` without the contexts' texts where columns of features say the same to all who read them."""
    ready = _ready(job)
    asked = (ready.policy, *ready.generations)
    texts = any(isinstance(policy, ReadsRows) or features_version_of(policy) != VERSION for policy in asked)
    flat = job.source.flat(unit) and not texts
    return tuple(name for name in columns if name not in _CONTEXT) if flat else columns


def _tables(job: Job, unit: int, columns: tuple[str, ...]) -> Iterator[pa.Table]:
    keep = None if job.where is None else matching_rows(*job.where)
    needed = columns
    if job.where is not None:
        label = "policy_version" if job.where[0] == "policy_version" else "context"
        needed = tuple(dict.fromkeys((*columns, label)))
    for table in job.source.batches(unit, needed):
        rows = table if keep is None else keep(table)
        if len(rows):
            yield rows


def _shard(job: Job, plan: Plan, loaded: Loaded, pmf: Floats, predicted: Predicted | None) -> Shard:
    bucket = None
    if plan.buckets:
        # The rows that teach the sequence's model come before the first stretch and are left out of it.
        first, last = job.extent.cut, job.extent.last
        bucket = (loaded.ts - first) * plan.buckets // max(last - first + 1, 1)
        bucket = np.where(loaded.ts < first, -1, bucket).clip(-1, plan.buckets - 1)
    return Shard(
        rows=Rows.of(
            loaded.interactions,
            pmf,
            None if predicted is None else predicted.expected,
            loaded.counts,
            robust=None if predicted is None or not plan.robust else predicted.robust,
            code=None if job.grouping is None else action_groups(loaded.table, job.grouping)[0],
        ),
        group=group_of_hash(loaded.hashed, plan.bootstrap) if plan.bootstrap else None,
        bucket=bucket,
        sequence=None if predicted is None else predicted.early,
        segment=None if job.segment is None else labels_of(loaded.table, job.segment),
    )


def _balanced(job: Job, plan: Plan, loaded: Loaded, generations: list[Tested], rows: Rows) -> EvaluationSums:
    log: Interactions = loaded.interactions
    mixed = balanced(log, [pmf_of(policy, loaded.table, log) for policy in generations], job.drawn)
    alone = Plan(low=plan.low, high=plan.high, model=plan.model, bootstrap=0, buckets=0)
    return evaluation_sums(Shard(rows=Rows.of(mixed, rows.target, rows.expected, loaded.counts)), alone)
