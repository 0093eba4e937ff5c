"""Estimators by name: what each needs of a log, and how its sums become an estimate.

Each estimator's file ends with its `ESTIMATOR`; `ESTIMATORS` names the files. An evaluation computes them all, and its
shards, intervals, bootstrap and reports know them by name alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any, Literal

from decision.batch import Floats
from decision.errors import FieldError
from decision.ope.estimate import Estimate
from decision.ope.rows import Rows

ESTIMATORS = {
    "replay": "decision.ope.estimators.replay_method",
    "ips": "decision.ope.estimators.ips",
    "snips": "decision.ope.estimators.snips",
    "clipped": "decision.ope.estimators.clipped",
    "cressie_read": "decision.ope.estimators.cressie_read",
    "dm": "decision.ope.estimators.direct_method",
    "dr": "decision.ope.estimators.dr",
    "sndr": "decision.ope.estimators.sndr",
    "switch_dr": "decision.ope.estimators.switch_dr",
    "dros": "decision.ope.estimators.dros",
    "cab": "decision.ope.estimators.cab",
    "mrdr": "decision.ope.estimators.mrdr",
    "mips": "decision.ope.estimators.mips",
    "offcem": "decision.ope.estimators.offcem",
}
"""Estimators of one decision's value, in the order of reports: the module that holds each one's `ESTIMATOR`."""

Need = Literal["model", "logging", "robust", "grouped"]
"""A reward model; every logging distribution whole; a second model, fitted for MRDR; actions in groups."""


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean of one term per row.

    Attributes:
        terms: (rows, [n] weights) -> [n].
        weights: rows -> [n] importance weights; None for those of the drawn actions.
        needs: what a log has to come with.
        biased: wrong by design on most logs: that it disagrees with other estimators says nothing of the log.
        doubt: a reason not to trust its interval, which every estimate carries.
    """

    terms: Callable[[Rows, Floats], Floats]
    weights: Callable[[Rows], Floats] | None = None
    needs: tuple[Need, ...] = ()
    biased: bool = False
    doubt: str | None = None


@dataclass(frozen=True, slots=True)
class Tuned:
    """A mean of one term per row that cuts large weights, at a point that SLOPE chooses.

    Attributes:
        terms: (rows, the largest weight that counts in full, or by half) -> [n].
        needs: as of `Mean`.
        biased: as of `Mean`.
    """

    terms: Callable[[Rows, float], Floats]
    needs: tuple[Need, ...] = ()
    biased: bool = False


@dataclass(frozen=True, slots=True)
class OwnSums:
    """An estimator that is no mean and keeps sums of its own.

    Attributes:
        sums: (rows, smallest reward possible, largest) -> sums that `+` merges.
        estimate: (sums, level=) -> the estimate; None where the log has no support.
        columns: rows -> [n] columns for its bootstrap, beside ``one``, ``weight`` and the terms of every `Mean`.
        replicate: sums of columns by name, [B] each -> [B] values; None where it is not bootstrapped.
        needs: as of `Mean`.
        biased: as of `Mean`.
    """

    sums: Callable[[Rows, float, float], Any]
    estimate: Callable[..., Estimate | None]
    columns: Callable[[Rows], dict[str, Floats]] | None = None
    replicate: Callable[[Mapping[str, Floats]], Floats] | None = None
    needs: tuple[Need, ...] = ()
    biased: bool = False


Estimator = Mean | Tuned | OwnSums


@cache
def estimator_of(name: str) -> Estimator:
    """Return the estimator of that name.

    Raises:
        FieldError: there is none.
    """
    if name not in ESTIMATORS:
        raise FieldError.choice("estimator", list(ESTIMATORS), name)
    return import_module(ESTIMATORS[name]).ESTIMATOR
