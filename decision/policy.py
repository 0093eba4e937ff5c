"""Policies: an oracle under an exploration rule, and the references.

A policy is its probability function; drawing and scoring derive from it, so a logged propensity cannot disagree with
the draw. `pmf` validates what it returns: nothing that is no distribution leaves here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isfinite
from typing import Literal

import numpy as np

from decision.batch import Batch, Features, Floats, one
from decision.errors import FieldError, Words
from decision.exploration.mix import check_pmf, with_floor, with_floor_few
from decision.exploration.rule import Exploration, rule_of
from decision.exploration.uniform import uniform
from decision.protocols import ManyModels, Oracle, Policy, Prepares

_FEW = 64


class UniformPolicy:
    """Every eligible action alike."""

    def pmf(self, batch: Batch) -> Floats:
        """Return [m] probabilities 1 / K."""
        return uniform(batch.offsets)

    def prepare(self, actions: Sequence[Features], action_ids: Sequence[str]) -> Callable[[Features], list[float]]:
        """Return what gives the [k] probabilities of `actions` ([k]) in any context."""
        pmf = [1.0 / len(actions)] * len(actions)
        return lambda context: pmf


class FirstPolicy:
    """The first action offered: the application's own choice."""

    def pmf(self, batch: Batch) -> Floats:
        """Return [m] probabilities, 1 for each decision's first action."""
        out = np.zeros(len(batch.actions))
        out[batch.offsets[:-1]] = 1.0
        return out

    def prepare(self, actions: Sequence[Features], action_ids: Sequence[str]) -> Callable[[Features], list[float]]:
        """Return what gives the [k] probabilities of `actions` ([k]) in any context."""
        pmf = [1.0] + [0.0] * (len(actions) - 1)
        return lambda context: pmf


class OraclePolicy:
    """An oracle's scores under an exploration rule.

    Attributes:
        oracle: expected reward per action.
        exploration: the rule.
    """

    def __init__(self, oracle: Oracle, exploration: Exploration) -> None:
        self.oracle = oracle
        self.exploration = exploration

    def scores(self, batch: Batch) -> Floats:
        """Return [m] expected rewards."""
        return self.oracle.predict(batch)

    def pmf(self, batch: Batch) -> Floats:
        """Return [m] probabilities, validated.

        Raises:
            FieldError: the oracle's scores led to no distribution.
        """
        return self.pmf_of(self.scores(batch), batch)

    def prepare(self, actions: Sequence[Features], action_ids: Sequence[str]) -> Callable[[Features], list[float]]:
        """Return what gives the [k] probabilities of `actions` ([k]) in one context, bit for bit those of `pmf`.

        Applications offer the same actions again and again: what depends on them alone is computed here, once. The
        caller validates the probabilities; what is returned raises as `pmf` where the scores are no numbers.
        """
        oracle, given = self.oracle, self.exploration
        few = rule_of(given.kind).few
        ours = type(self) is OraclePolicy and "pmf" not in vars(self)  # what has a `pmf` of its own is asked by it
        if few is None or len(actions) > _FEW or not isinstance(oracle, Prepares) or not ours:
            return lambda context: self.pmf(one(context, actions, action_ids)).tolist()
        score, floor = oracle.prepare(actions), given.floor

        def pmf(context: Features) -> list[float]:
            scores: list[float] = score(context).tolist()
            if not isfinite(sum(scores)):
                check_scores(np.array(scores))
            return with_floor_few(few(scores, given), floor)

        return pmf

    def pmf_of(self, scores: Floats, batch: Batch) -> Floats:
        """Return [m] probabilities of `scores` ([m]), validated.

        Raises:
            FieldError: the scores led to no distribution.
        """
        offsets = batch.offsets
        check_scores(scores)
        rule = rule_of(self.exploration.kind)
        predicted = self._members(batch) if rule.asks_members else scores
        out = with_floor(rule.pmf(predicted, offsets, self.exploration), offsets, self.exploration.floor)
        check_pmf(out, offsets)
        return out

    def _members(self, batch: Batch) -> Floats:
        if not isinstance(self.oracle, ManyModels):
            wanted = "a rule that needs no members, or stand on 'logistic', 'linear' or a bag"
            raise FieldError(
                "exploration", wanted=wanted, got=Words(f"{self.exploration.kind!r} on {type(self.oracle).__name__}")
            )
        return self.oracle.members(batch)


def check_scores(scores: Floats) -> None:
    """Refuse scores that are no finite numbers.

    Raises:
        FieldError: there is one.
    """
    if not np.isfinite(scores).all():
        raise FieldError("scores", wanted="finite numbers", got=scores)


def baseline_policy(kind: Literal["uniform", "first"]) -> Policy:
    """Return the reference policy of `kind`."""
    return UniformPolicy() if kind == "uniform" else FirstPolicy()
