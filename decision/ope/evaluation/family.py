"""The whole family of estimators over one shard of a log: the terms of each, at every value of its parameter.

A name with ``@`` gives the value, ``switch_dr@10``; SLOPE chooses among the values when all shards are added up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from decision.batch import Floats, Ints
from decision.errors import FieldError
from decision.ope.estimators.registry import ESTIMATORS, Estimator, Mean, OwnSums, Tuned, estimator_of
from decision.ope.intervals.doubly_robust_sequence import LIMIT
from decision.ope.rows import Rows

_FIRST = 256  # terms that differ mostly do so among the first
PARAMETERS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 1000.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is computed of every shard; the same for all shards of a log.

    Attributes:
        low: smallest reward possible.
        high: largest reward possible.
        model: there is a reward model.
        logging: the log holds every logging distribution whole.
        grouped: actions come in groups, for MIPS and OffCEM.
        robust: there is a second reward model, fitted for MRDR.
        bootstrap: random groups of rows; 0 for none.
        buckets: stretches of time of the trend; 0 for none.
        limit: k of the doubly robust confidence sequence.
    """

    low: float
    high: float
    model: bool = True
    logging: bool = True
    grouped: bool = False
    robust: bool = False
    bootstrap: int = 1_024
    buckets: int = 60
    limit: float = LIMIT

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise FieldError("low", wanted=f"below high = {self.high}", got=self.low)
        if self.bootstrap < 0 or self.buckets < 0:
            raise FieldError("bootstrap", wanted="0 or more groups and buckets", got=(self.bootstrap, self.buckets))


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """Some rows of a log with everything that estimators are told about them.

    Attributes:
        rows: the rows, with reward models that were fitted on other rows.
        group: [n] int64 random group of each row, for the bootstrap.
        bucket: [n] int64 stretch of time, -1 for rows that the confidence sequence leaves out.
        sequence: [m] a reward model that learned from none of the rows with a bucket, nor later ones.
        segment: [n] label of the segment; None where none is asked for.
    """

    rows: Rows
    group: Ints | None = None
    bucket: Ints | None = None
    sequence: Floats | None = None
    segment: Sequence[str] | None = None


def planned(plan: Plan) -> dict[str, Estimator]:
    """Return the estimators that get what they need, in the order of reports."""
    family = {name: estimator_of(name) for name in ESTIMATORS}
    return {name: one for name, one in family.items() if all(getattr(plan, need) for need in one.needs)}


def own_weights(rows: Rows, plan: Plan) -> dict[str, Floats]:
    """Return [n] weights by estimator, of those that have weights of their own.

    Raises:
        FieldError: the plan counts on something that the rows lack.
    """
    family = planned(plan)
    needed = {need for one in family.values() for need in one.needs}
    for need, column in (("model", rows.model), ("robust", rows.robust_model), ("grouped", rows.groups)):
        if need in needed:
            column()
    found: dict[Callable[[Rows], Floats], Floats] = {}
    out: dict[str, Floats] = {}
    for name, one in family.items():
        if isinstance(one, Mean) and one.weights is not None:
            if one.weights not in found:
                found[one.weights] = one.weights(rows)
            out[name] = found[one.weights]
    return out


def terms_of(rows: Rows, plan: Plan, own: Mapping[str, Floats]) -> dict[str, Floats]:
    """Return [n] terms by estimator, those with a parameter once per value of it; `own` are of `own_weights`.

    Values of a parameter that make the same terms share one array.

    Raises:
        FieldError: the plan counts on something that the rows lack.
    """
    terms = {"logged": rows.reward}
    for name, one in planned(plan).items():
        if isinstance(one, Mean):
            terms[name] = one.terms(rows, own.get(name, rows.weight))
        elif isinstance(one, Tuned):
            terms |= _tuned_terms(name, one, rows)
    # Paired with what was logged: the spread that both share cancels.
    terms["lift"] = terms["dr" if plan.model else "ips"] - rows.reward
    return terms


def _tuned_terms(name: str, one: Tuned, rows: Rows) -> dict[str, Floats]:
    # Beyond the largest weight a parameter changes nothing: the same array stands for the same terms, summed once.
    out: dict[str, Floats] = {}
    last: Floats | None = None
    for tau in PARAMETERS:
        terms = one.terms(rows, tau)
        if last is None or not (bool((terms[:_FIRST] == last[:_FIRST]).all()) and bool((terms == last).all())):
            last = terms
        out[f"{name}@{tau:g}"] = last
    return out


def ratio_columns(rows: Rows, plan: Plan) -> dict[str, Floats]:
    """Return [n] columns whose sums the estimators that are no means are bootstrapped from."""
    columns = {"one": np.ones(len(rows)), "weight": rows.weight}
    for one in planned(plan).values():
        if isinstance(one, OwnSums) and one.columns is not None:
            columns |= one.columns(rows)
    return columns
