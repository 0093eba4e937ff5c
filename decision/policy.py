"""Policies: an oracle under an exploration rule, and the references.

A policy is its probability function; drawing and scoring derive from it, so a logged propensity cannot disagree with
the draw. `pmf` validates what it returns: nothing that is no distribution leaves here.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from decision.batch import Batch, Floats
from decision.errors import FieldError
from decision.exploration.epsilon_greedy import epsilon_greedy
from decision.exploration.falcon import falcon_gamma
from decision.exploration.fastcb import fastcb
from decision.exploration.mix import check_pmf, with_floor
from decision.exploration.regcb import regcb
from decision.exploration.softmax import softmax
from decision.exploration.squarecb import squarecb
from decision.exploration.uniform import uniform
from decision.exploration.votes import votes
from decision.options import SHIPPED, NotNegative, Range, RuleKind, Share
from decision.protocols import ManyModels, Oracle, Policy


class Exploration(Range, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An exploration rule and its numbers.

    Attributes:
        kind: the rule; ``thompson`` and ``regcb`` need an oracle with members (``logistic``, ``linear``, or a bag).
        gamma: of ``squarecb`` and ``fastcb``; for ``falcon`` the largest that its schedule may reach. In 1 / reward
            units.
        epsilon: epsilon-greedy's share of uniform draws.
        inverse_temperature: lambda of ``softmax``, in 1 / reward units.
        falcon_scale: c of ``falcon``.
        rows: effective number of rows that the oracle was trained on, for ``falcon``; the training fills it in.
        floor: share of uniform draws under every rule.

    Raises:
        FieldError: a number is outside its range.
    """

    kind: RuleKind = SHIPPED.exploration
    gamma: NotNegative = SHIPPED.gamma
    epsilon: Share = SHIPPED.epsilon
    inverse_temperature: NotNegative = SHIPPED.inverse_temperature
    falcon_scale: NotNegative = SHIPPED.falcon_scale
    rows: NotNegative = 0.0
    floor: Share = SHIPPED.floor


class UniformPolicy:
    """Every eligible action alike."""

    def pmf(self, batch: Batch) -> Floats:
        """Return [m] probabilities 1 / K."""
        return uniform(batch.offsets)


class FirstPolicy:
    """The first action offered: the application's own choice."""

    def pmf(self, batch: Batch) -> Floats:
        """Return [m] probabilities, 1 for each decision's first action."""
        out = np.zeros(len(batch.actions))
        out[batch.offsets[:-1]] = 1.0
        return out


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

    def pmf_of(self, scores: Floats, batch: Batch) -> Floats:
        """Return [m] probabilities of `scores` ([m]), validated.

        Raises:
            FieldError: the scores led to no distribution.
        """
        rule, offsets = self.exploration, batch.offsets
        if not np.isfinite(scores).all():
            raise FieldError("scores", wanted="finite numbers", got=scores)
        if rule.kind == "squarecb":
            out = squarecb(scores, offsets, gamma=rule.gamma)
        elif rule.kind == "falcon":
            gamma = falcon_gamma(offsets, rows=rule.rows, scale=rule.falcon_scale / (rule.high - rule.low))
            out = squarecb(scores, offsets, gamma=np.minimum(gamma, rule.gamma))
        elif rule.kind == "fastcb":
            out = fastcb(scores, offsets, gamma=rule.gamma, low=rule.low, high=rule.high)
        elif rule.kind == "epsilon_greedy":
            out = epsilon_greedy(scores, offsets, epsilon=rule.epsilon)
        elif rule.kind == "softmax":
            out = softmax(scores, offsets, inverse_temperature=rule.inverse_temperature)
        elif rule.kind == "thompson":
            out = votes(self._members(batch), offsets)
        elif rule.kind == "regcb":
            members = self._members(batch)
            out = regcb(members.max(axis=0), members.min(axis=0), offsets)
        else:
            out = uniform(offsets)
        out = with_floor(out, offsets, rule.floor)
        check_pmf(out, offsets)
        return out

    def _members(self, batch: Batch) -> Floats:
        if not isinstance(self.oracle, ManyModels):
            wanted = 'an oracle with members ("logistic", "linear" or a bag)'
            raise FieldError(
                "exploration", wanted=wanted, got=f"{self.exploration.kind} on {type(self.oracle).__name__}"
            )
        return self.oracle.members(batch)


def baseline_policy(kind: Literal["uniform", "first"]) -> Policy:
    """Return the reference policy of `kind`."""
    return UniformPolicy() if kind == "uniform" else FirstPolicy()
