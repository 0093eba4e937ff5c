"""Policies: an oracle under an exploration rule, and the references.

A policy is its probability function; drawing and scoring derive from it, so a logged propensity cannot disagree with
the draw. `pmf` validates what it returns: nothing that is no distribution leaves here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import isfinite
from typing import Literal

import numpy as np

from decision.batch import Batch, Features, Floats, one
from decision.errors import FieldError, Words
from decision.exploration.cap import capped, capped_few, without_supplied
from decision.exploration.mix import check_pmf, with_floor, with_floor_few
from decision.exploration.rule import Exploration, rule_of
from decision.exploration.tilt import ranked
from decision.exploration.uniform import uniform
from decision.features import VERSION
from decision.oracles.action_ids import with_id, with_ids
from decision.protocols import ManyModels, Oracle, Policy, Prepares

Pmfs = Callable[[Sequence[Features]], list[list[float]]]
"""From n contexts to the probabilities, ``[n][k]``, of the actions it was made for."""

BaselineKind = Literal["uniform", "first", "ranking"]
"""Every action alike, the first one offered, or the order offered as a ranking."""

_FEW = 64


class UniformPolicy:
    """Every eligible action alike."""

    def pmf(self, batch: Batch) -> Floats:
        """Return [m] probabilities 1 / K."""
        return uniform(batch.offsets)

    def prepare(self, actions: Sequence[Features], action_ids: Sequence[str]) -> Pmfs:
        """Return what gives the probabilities of `actions` ([k]) in any contexts."""
        pmf = [1.0 / len(actions)] * len(actions)
        return lambda contexts: [pmf] * len(contexts)


class FirstPolicy:
    """The first action offered: the application's own choice."""

    def pmf(self, batch: Batch) -> Floats:
        """Return [m] probabilities, 1 for each decision's first action."""
        out = np.zeros(len(batch.actions))
        out[batch.offsets[:-1]] = 1.0
        return out

    def prepare(self, actions: Sequence[Features], action_ids: Sequence[str]) -> Pmfs:
        """Return what gives the probabilities of `actions` ([k]) in any contexts."""
        pmf = [1.0] + [0.0] * (len(actions) - 1)
        return lambda contexts: [pmf] * len(contexts)


class RankingPolicy:
    """The order offered as the application's ranking: an action's probability falls as a power of its place.

    Attributes:
        steepness: the power, 0 or more, see `decision.exploration.tilt.ranked`.
    """

    def __init__(self, steepness: float) -> None:
        self.steepness = steepness

    def pmf(self, batch: Batch) -> Floats:
        """Return [m] probabilities."""
        return ranked(batch.offsets, steepness=self.steepness)

    def prepare(self, actions: Sequence[Features], action_ids: Sequence[str]) -> Pmfs:
        """Return what gives the probabilities of `actions` ([k]) in any contexts."""
        pmf = ranked(np.array([0, len(actions)], dtype=np.int64), steepness=self.steepness).tolist()
        return lambda contexts: [pmf] * len(contexts)


class OraclePolicy:
    """An oracle's scores under an exploration rule.

    Attributes:
        oracle: expected reward per action.
        exploration: the rule.
        features_version: of the rules by which it wants features flattened: those of the rows it learned from.
        action_ids: the oracle reads the actions' ids as features, see `decision.oracles.action_ids`.
    """

    def __init__(
        self,
        oracle: Oracle,
        exploration: Exploration,
        *,
        features_version: int = VERSION,
        action_ids: bool = False,
    ) -> None:
        self.oracle = oracle
        self.exploration = exploration
        self.features_version = features_version
        self.action_ids = action_ids

    def scores(self, batch: Batch) -> Floats:
        """Return [m] expected rewards."""
        return self.oracle.predict(self._read(batch))

    def pmf(self, batch: Batch) -> Floats:
        """Return [m] probabilities, validated.

        Raises:
            FieldError: the oracle's scores led to no distribution.
        """
        return self.pmf_of(self.scores(batch), batch)

    def prepare(self, actions: Sequence[Features], action_ids: Sequence[str]) -> Pmfs:
        """Return what gives the probabilities of `actions` ([k]) in contexts, bit for bit as `pmf` of each alone.

        Applications offer the same actions again and again: what depends on them alone is computed here, once. The
        caller validates the probabilities; what is returned raises as `pmf` where the scores of one are no numbers.
        """
        oracle, given = self.oracle, self.exploration
        rule, k = rule_of(given.kind), len(actions)
        ours = type(self) is OraclePolicy and "pmf" not in vars(self)  # what has a `pmf` of its own is asked by it
        if rule.asks_members or not isinstance(oracle, Prepares) or not ours:
            return lambda contexts: [self.pmf(one(each, actions, action_ids)).tolist() for each in contexts]
        if self.action_ids:
            actions = [*map(with_id, actions, action_ids)]
        scores_of, few, floor = oracle.prepare(actions), rule.few, given.floor

        def pmfs(contexts: Sequence[Features]) -> list[list[float]]:
            scores, n = scores_of(contexts), len(contexts)
            if few is None or n * k > _FEW:
                check_scores(scores)
                offsets = np.arange(0, n * k + 1, k)
                pmf = with_floor(rule.pmf(scores.ravel(), offsets, given), offsets, floor)
                return pmf.reshape(n, k).tolist()
            out: list[list[float]] = []
            for row in scores.tolist():
                if not isfinite(sum(row)):
                    check_scores(np.array(row))
                out.append(with_floor_few(few(row, given), floor))
            return out

        return pmfs

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
        return self.oracle.members(self._read(batch))

    def _read(self, batch: Batch) -> Batch:
        return with_ids(batch) if self.action_ids else batch


class CappedPolicy(OraclePolicy):
    """An oracle policy near one that does not see what the caller supplies, see `decision.exploration.cap`.

    Attributes:
        full: the policy that sees everything; its scores are this one's.
        trusted: the one that was trained, and is asked, without the features in `supplied`.
        supplied: names of context features that the caller supplies.
        cap: K; no probability is more than K + 1 times the trusted one.
    """

    def __init__(self, full: OraclePolicy, trusted: OraclePolicy, *, supplied: Sequence[str], cap: float) -> None:
        super().__init__(
            full.oracle, full.exploration, features_version=full.features_version, action_ids=full.action_ids
        )
        self.full, self.trusted, self.supplied, self.cap = full, trusted, tuple(supplied), cap

    def trusted_pmf(self, batch: Batch) -> Floats:
        """Return [m] probabilities without a look at what the caller supplies, validated.

        Raises:
            FieldError: the trusted oracle's scores led to no distribution.
        """
        return self.trusted.pmf(blinded(batch, self.supplied))

    def pmf_of(self, scores: Floats, batch: Batch) -> Floats:
        """Return [m] probabilities of `scores` ([m], of the policy that sees everything), capped and validated.

        Raises:
            FieldError: the scores of one of the two led to no distribution.
        """
        offsets = batch.offsets
        out = capped(self.full.pmf_of(scores, batch), self.trusted_pmf(batch), offsets, cap=self.cap)
        check_pmf(out, offsets)
        return out

    def prepare(self, actions: Sequence[Features], action_ids: Sequence[str]) -> Pmfs:
        """Return what gives the probabilities of `actions` ([k]) in contexts, as `OraclePolicy.prepare`."""
        full, trusted = self.full.prepare(actions, action_ids), self.trusted.prepare(actions, action_ids)
        supplied, cap = self.supplied, self.cap

        def pmfs(contexts: Sequence[Features]) -> list[list[float]]:
            near = trusted(without_supplied(contexts, supplied))
            return [capped_few(f, t, cap=cap) for f, t in zip(full(contexts), near, strict=True)]

        return pmfs


def blinded(batch: Batch, supplied: Sequence[str]) -> Batch:
    """Return the decisions without the context features in `supplied`."""
    return replace(batch, contexts=without_supplied(batch.contexts, supplied)) if supplied else batch


def features_version_of(policy: Policy) -> int:
    """Return the version of flattening that `policy` asks for; the present one where it does not look at features."""
    found: object = getattr(policy, "features_version", VERSION)
    return found if isinstance(found, int) else VERSION


def check_scores(scores: Floats) -> None:
    """Refuse scores that are no finite numbers.

    Raises:
        FieldError: there is one.
    """
    if not np.isfinite(scores).all():
        raise FieldError("scores", wanted="finite numbers", got=scores)


def baseline_policy(kind: BaselineKind, *, steepness: float = 1.0) -> Policy:
    """Return the reference policy of `kind`; `steepness` is that of a ``ranking``."""
    if kind == "ranking":
        return RankingPolicy(steepness)
    return UniformPolicy() if kind == "uniform" else FirstPolicy()
