"""The whole family of estimators over one shard of a log: the terms of each, at every value of its parameter.

A name with ``@`` gives the value, ``switch_dr@10``; SLOPE chooses among the values when all shards are added up.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from decision.batch import Floats, Ints
from decision.errors import FieldError
from decision.ope.estimators.cab import cab_terms
from decision.ope.estimators.clipped import clipped_terms
from decision.ope.estimators.dros import shrinkage_terms
from decision.ope.estimators.mips import group_weights
from decision.ope.estimators.switch_dr import switch_terms
from decision.ope.intervals.doubly_robust_sequence import LIMIT
from decision.ope.rows import Rows

PARAMETERS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 1000.0)
TUNED = ("clipped", "switch_dr", "dros", "cab")


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
        rows: the rows, with the reward model that was fitted on other rows.
        robust: [m] the reward model for MRDR.
        code: [m] int64 group of every offered action.
        group: [n] int64 random group of each row, for the bootstrap.
        bucket: [n] int64 stretch of time, -1 for rows that the confidence sequence leaves out.
        sequence: [m] a reward model that learned from none of the rows with a bucket, nor later ones.
        segment: [n] label of the segment; None where none is asked for.
    """

    rows: Rows
    robust: Floats | None = None
    code: Ints | None = None
    group: Ints | None = None
    bucket: Ints | None = None
    sequence: Floats | None = None
    segment: list[str] | None = None


def terms_of(shard: Shard, plan: Plan) -> dict[str, Floats]:
    """Return [n] terms by estimator, those with a parameter once per value of it.

    Raises:
        FieldError: the plan counts on something that the shard lacks.
    """
    rows = shard.rows
    terms = {"logged": rows.reward, "ips": rows.weight * rows.reward}
    terms |= {f"clipped@{tau:g}": clipped_terms(rows, tau) for tau in PARAMETERS}
    if plan.model:
        rows.model()
        terms |= {"dm": rows.direct, "dr": rows.direct + rows.weight * rows.residual}
        terms |= {f"switch_dr@{tau:g}": switch_terms(rows, tau) for tau in PARAMETERS}
        # lam = tau^2 shrinks a weight of tau to its half.
        terms |= {f"dros@{tau:g}": shrinkage_terms(rows, tau**2) for tau in PARAMETERS}
        if plan.logging:
            terms |= {f"cab@{tau:g}": cab_terms(rows, tau) for tau in PARAMETERS}
    # Paired with what was logged: the spread that both share cancels.
    terms["lift"] = terms["dr" if plan.model else "ips"] - rows.reward
    if plan.robust:
        if shard.robust is None:
            raise FieldError("robust", wanted="a reward model for MRDR", got=None)
        terms["mrdr"] = _dr(rows, shard.robust)
    if plan.grouped and plan.logging:
        if shard.code is None:
            raise FieldError("code", wanted="a group of every action", got=None)
        weights = group_weights(rows, shard.code)
        terms |= {"group_weight": weights, "mips": weights * rows.reward}
        if plan.model:
            terms["offcem"] = rows.direct + weights * rows.residual
    return terms


def ratio_columns(rows: Rows, plan: Plan) -> dict[str, Floats]:
    """Return [n] columns whose sums the estimators that are ratios are made of."""
    matched = rows.target[rows.chosen]
    columns = {
        "one": np.ones(len(rows)),
        "weight": rows.weight,
        "match": matched,
        "match_reward": matched * rows.reward,
    }
    if plan.model:
        columns["error"] = rows.weight * rows.residual
    return columns


def _dr(rows: Rows, expected: Floats) -> Floats:
    direct = np.add.reduceat(rows.target * expected, rows.offsets[:-1]) if len(rows) else np.zeros(0)
    return direct + rows.weight * (rows.reward - expected[rows.chosen])
