"""Everything an evaluation keeps of a log: sums that add up over shards, to the same bits however the log was cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decision.batch import Floats, Ints
from decision.columns import Texts
from decision.errors import FieldError
from decision.ope.diagnostics.histogram import Tally
from decision.ope.estimators.registry import OwnSums
from decision.ope.evaluation.family import Plan, Shard, own_weights, planned, ratio_columns, terms_of
from decision.ope.intervals.bootstrap import GroupSums
from decision.ope.intervals.doubly_robust_sequence import SequenceSums, difference_terms, value_terms
from decision.ope.rows import Rows
from decision.ope.sums.exact import Exact, added, exact_group_sums, exact_sums, expansion
from decision.ope.sums.means import MeanSums, Support, cube_columns, mean_columns, merged_cubes

MAX_SEGMENTS = 200
CUBED = ("logged", "ips", "dr", "lift")
"""Estimates whose intervals follow the skewness of their terms: those to be read first, and what stands beside them."""
_UNIFORM = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EvaluationSums:
    """The sums of a log or a shard of it; `+` merges shards.

    Attributes:
        support: of the importance weights.
        supports: of the weights of estimators that have their own, by name.
        means: sums of c t, c^2 t and c^2 t^2 by name, see `decision.ope.evaluation.family.terms_of`.
        cubes: sums for the skewness of those in `CUBED`, see `decision.ope.sums.means.MeanSums`.
        others: sums of the estimators that are no means, by name.
        columns: names of the rows of `groups`.
        groups: sums by random group of rows, for the bootstrap; None without.
        trend: [10, B] sums by stretch of time, see `sequence_of`; None without.
        segments: sums of the terms of DR (IPS without a model) by segment.
        tally: what the diagnostics need.
        stratum: of IPS on the rows that were drawn uniformly.
    """

    support: Support
    supports: dict[str, Support]
    means: dict[str, tuple[Exact, Exact, Exact]]
    cubes: dict[str, tuple[Exact, ...]]
    others: dict[str, Any]
    columns: tuple[str, ...]
    groups: GroupSums | None
    trend: NDArray[np.object_] | None
    segments: dict[str, MeanSums]
    tally: Tally
    stratum: MeanSums = field(default_factory=MeanSums)

    def __add__(self, other: EvaluationSums) -> EvaluationSums:
        means = {
            name: (added(a[0], b[0]), added(a[1], b[1]), added(a[2], b[2]))
            for name, a in self.means.items()
            for b in [other.means[name]]
        }
        return EvaluationSums(
            support=self.support + other.support,
            supports={name: one + other.supports[name] for name, one in self.supports.items()},
            means=means,
            cubes={
                name: merged_cubes((self.support.n, one), (other.support.n, other.cubes[name]))
                for name, one in self.cubes.items()
            },
            others={name: one + other.others[name] for name, one in self.others.items()},
            columns=self.columns,
            groups=None if self.groups is None or other.groups is None else self.groups + other.groups,
            trend=None if self.trend is None or other.trend is None else self.trend + other.trend,
            segments=_merged(self.segments, other.segments),
            tally=self.tally + other.tally,
            stratum=self.stratum + other.stratum,
        )

    def mean(self, name: str) -> MeanSums:
        """Return the sums of one estimator of the family."""
        support = self.supports.get(name, self.support)
        if name == "logged":
            ones = replace(support, weight=support.mass, weight_cross=support.mass_square)
            support = replace(ones, weight_square=support.mass_square, largest=1.0)
        return MeanSums(support, *self.means[name], self.cubes.get(name, ()))


def evaluation_sums(shard: Shard, plan: Plan) -> EvaluationSums:
    """Return the sums of a shard.

    Raises:
        FieldError: the plan counts on something that the shard lacks, a reward is outside the plan's range, or there
            are more than 200 segments.
    """
    rows = shard.rows
    own = own_weights(rows, plan)
    terms = terms_of(rows, plan, own)
    columns = ratio_columns(rows, plan)
    named = {**columns, **terms}
    groups = None
    if plan.bootstrap and shard.group is not None:
        stacked = list(named.values())
        counted = stacked if rows.counts is None else [column * rows.counts for column in stacked]
        groups = GroupSums.of(counted, shard.group, plan.bootstrap)
    weights, counts = rows.weight, rows.counts
    means = _means(terms, counts, groups, tuple(named))
    segment_terms = terms["dr" if plan.model else "ips"]
    return EvaluationSums(
        support=Support.of(weights, counts),
        supports={name: Support.of(of_its_own, counts) for name, of_its_own in own.items()},
        means=means,
        cubes={name: cube_columns(terms[name], counts, means[name]) for name in CUBED if name in terms},
        others={
            name: one.sums(rows, plan.low, plan.high) for name, one in planned(plan).items() if isinstance(one, OwnSums)
        },
        columns=tuple(named),
        groups=groups,
        trend=_trend(shard, plan),
        segments={} if shard.segment is None else segment_sums(segment_terms, rows, shard.segment),
        tally=Tally.of(rows),
        stratum=_stratum(rows, terms["ips"]),
    )


def _stratum(rows: Rows, terms: Floats) -> MeanSums:
    drawn = np.abs(np.diff(rows.offsets) * rows.propensity - 1.0) < _UNIFORM
    counts = None if rows.counts is None else rows.counts[drawn]
    return MeanSums.of(terms[drawn], rows.weight[drawn], counts)


def _means(
    terms: Mapping[str, Floats], counts: Floats | None, groups: GroupSums | None, names: tuple[str, ...]
) -> dict[str, tuple[Exact, Exact, Exact]]:
    if groups is None or counts is not None:
        return {name: mean_columns(values, counts) for name, values in terms.items()}
    # The groups' sums add up to the totals: only the squares are left to be summed, those of equal terms once.
    distinct = {id(values): values for values in terms.values()}
    squares = dict(zip(distinct, exact_sums(values**2 for values in distinct.values()), strict=True))
    totals = dict(zip(names, map(expansion, groups.exact.totals()), strict=True))
    return {name: (totals[name], totals[name], squares[id(values)]) for name, values in terms.items()}


def _trend(shard: Shard, plan: Plan) -> NDArray[np.object_] | None:
    """Return [10, B]: rows, then sum and sum of squares of lower and upper terms of the value and of the lift."""
    if not plan.buckets or shard.bucket is None or shard.rows.counts is not None:
        return None
    kept = shard.bucket >= 0
    rows = replace(shard.rows, expected=shard.sequence)
    value = value_terms(rows, low=plan.low, high=plan.high, limit=plan.limit)
    lift = lift_terms(rows, plan)
    parts = [terms[kept] for terms in (*value, *lift)]
    columns = [np.ones(int(kept.sum())), *parts, *(terms**2 for terms in parts), shard.rows.reward[kept]]
    return exact_group_sums(columns, shard.bucket[kept], plan.buckets)


def lift_terms(rows: Rows, plan: Plan) -> tuple[Floats, Floats]:
    """Return [n] lower and [n] upper terms of the lift over the policy that drew the log.

    Without whole logging distributions they are ``(w - 1) r >= -1`` and ``(w - 1) (1 - r) >= -1``: as weights have mean
    1, the second has minus the first one's mean.
    """
    if rows.logging is not None and plan.logging:
        old = replace(rows, target=rows.logging, weight=np.ones(len(rows)))
        return difference_terms(rows, old, low=plan.low, high=plan.high, limit=plan.limit)
    reward = (rows.reward - plan.low) / (plan.high - plan.low)
    return (rows.weight - 1.0) * reward, (rows.weight - 1.0) * (1.0 - reward)


def sequence_of(trend: NDArray[np.object_], plan: Plan, *, lift: bool) -> SequenceSums:
    """Return the confidence sequence's sums over the stretches [10, b] of a trend."""
    totals = [expansion(sum(row.tolist())) for row in trend]
    first = 3 if lift else 1
    n = int(totals[0][0]) if totals[0] else 0
    return SequenceSums(
        n,
        (totals[first], totals[first + 4]),
        (totals[first + 1], totals[first + 5]),
        plan.limit + 1.0 if lift else plan.limit,
        lift,
        plan.low,
        plan.high,
    )


def segment_sums(terms: Floats, rows: Rows, labels: Sequence[str]) -> dict[str, MeanSums]:
    """Return the sums of [n] terms by label.

    Raises:
        FieldError: there are more than 200 labels.
    """
    texts = Texts.of(labels)
    used = np.unique(texts.code)
    if used.size > MAX_SEGMENTS:
        raise FieldError("segment", wanted=f"at most {MAX_SEGMENTS} different values", got=used.size)
    names = [texts.names[number] for number in used.tolist()]
    code: Ints = np.searchsorted(used, texts.code).astype(np.int64)
    c = np.ones(len(rows)) if rows.counts is None else rows.counts
    w = rows.weight
    columns = [c, c**2, c * w, c**2 * w, (c * w) ** 2, c * terms, c**2 * terms, (c * terms) ** 2]
    columns += [c**3, c**3 * terms, c**3 * terms**2, (c * terms) ** 3]
    wholes = exact_group_sums(columns, code, len(names))
    sizes = np.bincount(code, minlength=len(names))
    largest = np.zeros(len(names))
    np.maximum.at(largest, code, c * w)
    out: dict[str, MeanSums] = {}
    for number, name in enumerate(names):
        mass, mass_square, weight, cross, square, *rest = (expansion(row[number]) for row in wholes)
        support = Support(int(sizes[number]), mass, mass_square, weight, cross, square, float(largest[number]))
        out[name] = MeanSums(support, rest[0], rest[1], rest[2], tuple(rest[3:]))
    return dict(sorted(out.items()))


def _merged(a: dict[str, MeanSums], b: dict[str, MeanSums]) -> dict[str, MeanSums]:
    return {
        name: a[name] + b[name] if name in a and name in b else a.get(name, b.get(name, MeanSums()))
        for name in sorted({*a, *b})
    }
