"""State of a loop's rollout, and the pure steps between two states: fold settled decisions in, judge, move.

Everything a replay needs is here: evidence as exact sums, the drift detector with its open batch, and the position
in each log partition up to which decisions were folded in.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal, NamedTuple

import msgspec
import numpy as np

from decision.batch import Floats
from decision.guard.drift import after_batch, has_drifted, no_drift
from decision.guard.evidence import Evidence, certified_rung, evidence_of, is_better, is_futile, no_evidence
from decision.guard.rules import GuardRules
from pipelines.settings import LoopSettings

AUDIT_Z = 4.0
AUDIT_MINIMUM = 1000
"""Decisions below which the mean weights are not judged."""
_TINY = 1e-6  # what rounding to 2^-20 may add to a mean

Status = Literal["off", "idle", "climbing", "frozen", "killed", "promoted"]
Judged = Literal["frozen", "killed", "drifted", "promoted", "climbing"]


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What a rollout's evidence was gathered under; other terms begin it anew.

    Attributes:
        alpha: share of the reward that may be given up.
        delta: error probability of each test, over all attempts of the candidate.
        holdout: share kept from the candidate.
        spacing: distance between rungs.
        batch: decisions per step of the drift detector.
        minimum: smallest reward.
        maximum: largest reward.
        reward_version: the reward's definition.
    """

    alpha: float
    delta: float
    holdout: float
    spacing: float
    batch: int
    minimum: float
    maximum: float
    reward_version: str


class Sums(msgspec.Struct, frozen=True, kw_only=True):
    """`Evidence` as plain integers, see there."""

    decisions: int
    ladder: list[list[int]]
    futility: list[int]
    promotion: list[int]
    weights: list[int]
    clipped: int


class GuardState(msgspec.Struct, frozen=True, kw_only=True):
    """State of a loop's guard.

    Attributes:
        loop: the loop.
        epoch: number of commits; a commit that does not follow the one it read is refused.
        guard_version: version of what is published.
        status: ``off`` (not enabled), ``idle`` (no candidate), ``climbing``, ``frozen`` (at alpha, until resumed), or
            what became of the last candidate.
        reason: why, in words.
        pending: a move of aliases that is decided and not known to be carried out.
        baseline_version: the policy in charge that the rollout is measured against.
        candidate_version: the version rolled out; "" without.
        attempt: number of the candidate's attempt; each has its own share of the error.
        attempt_number: number of the attempt in the loop's history.
        since_version: decisions of earlier guard versions belong to earlier attempts.
        terms: what the evidence was gathered under.
        weight: the candidate's share as published.
        sums: the evidence.
        drift: [J] log M of the drift detector.
        open_rewards: rewards of its open batch, scaled to [0, 1].
        open_weights: the baseline's weights of its open batch.
        positions: {log partition: offset} below which everything was folded in.
        skipped: settled decisions of the loop left out, by reason.
        at_top: decisions folded in that were served at the top weight.
        inexact: decisions whose logged propensity is not that of the mixture.
        cap: largest weight, set by an operator.
        stopped: stopped by an operator: the candidate gets nothing.
        expires_at: until when what is published holds, seconds since 1970.
    """

    loop: str
    epoch: int = 0
    guard_version: int = 0
    status: Status = "idle"
    reason: str = ""
    pending: Literal["", "promote", "kill"] = ""
    baseline_version: str = ""
    candidate_version: str = ""
    attempt: int = 0
    attempt_number: int = 0
    since_version: int = 0
    terms: Terms | None = None
    weight: float = 0.0
    sums: Sums | None = None
    drift: list[float] = []
    open_rewards: list[float] = []
    open_weights: list[float] = []
    positions: dict[int, int] = {}
    skipped: dict[str, int] = {}
    at_top: int = 0
    inexact: int = 0
    cap: float = 1.0
    stopped: bool = False
    expires_at: float = 0.0


class Rows(NamedTuple):
    """n settled decisions of an attempt in decision order: reward in [0, 1], w_c, w_b and rho, each [n]."""

    reward: Floats
    weight_candidate: Floats
    weight_baseline: Floats
    rho: Floats


def terms_of(loop: LoopSettings) -> Terms:
    """Return the terms that the loop's settings ask for."""
    guard, reward = loop.guard, loop.reward
    return Terms(
        alpha=guard.alpha,
        delta=guard.delta,
        holdout=guard.holdout,
        spacing=guard.spacing,
        batch=guard.batch,
        minimum=reward.minimum,
        maximum=reward.maximum,
        reward_version=reward.version,
    )


def rules_of(terms: Terms, attempt: int) -> GuardRules:
    """Return the rules of a candidate's k-th attempt: its share of the error is 6 / (pi k)^2, which sums to one."""
    rules = GuardRules(alpha=terms.alpha, top=1.0 - terms.holdout, spacing=terms.spacing, batch=terms.batch)
    delta = terms.delta * 6.0 / (math.pi * attempt) ** 2
    return replace(rules, delta=delta, delta_futility=delta, delta_promotion=delta)


def rules_in(state: GuardState) -> GuardRules:
    """Return the rules of the state's attempt; it has to have one."""
    assert state.terms is not None  # noqa: S101 - set with every attempt
    return rules_of(state.terms, state.attempt)


def evidence_in(state: GuardState) -> Evidence:
    """Return the state's evidence."""
    sums = state.sums
    if sums is None:
        return no_evidence(rules_in(state))
    return Evidence(
        sums.decisions,
        np.array(sums.ladder, dtype=np.int64),
        np.array(sums.futility, dtype=np.int64),
        np.array(sums.promotion, dtype=np.int64),
        np.array(sums.weights, dtype=np.int64),
        sums.clipped,
    )


def without_evidence(state: GuardState) -> GuardState:
    """Return the state as it is before the first decision of its attempt is folded in; positions stay."""
    return msgspec.structs.replace(
        state,
        sums=None,
        drift=no_drift(rules_in(state)).tolist(),
        open_rewards=[],
        open_weights=[],
        skipped={},
        at_top=0,
        inexact=0,
    )


def folded(state: GuardState, rows: Rows) -> GuardState:
    """Return the state with `rows`, which follow those folded in before, folded in."""
    rules = rules_in(state)
    evidence = evidence_in(state).merge(
        evidence_of(rows.reward, rows.weight_candidate, rows.weight_baseline, rows.rho, rules)
    )
    # The detector's steps are batches of fixed size in this order, however the decisions came in.
    drift = np.array(state.drift)
    reward = np.concatenate((np.array(state.open_rewards, dtype=np.float64), rows.reward))
    weight = np.concatenate((np.array(state.open_weights, dtype=np.float64), rows.weight_baseline))
    whole = len(reward) // rules.batch * rules.batch
    for start in range(0, whole, rules.batch):
        batch = slice(start, start + rules.batch)
        drift = after_batch(drift, reward[batch], weight[batch], rules)
    sums = Sums(
        decisions=evidence.decisions,
        ladder=evidence.ladder.tolist(),
        futility=evidence.futility.tolist(),
        promotion=evidence.promotion.tolist(),
        weights=evidence.weights.tolist(),
        clipped=evidence.clipped,
    )
    return msgspec.structs.replace(
        state,
        sums=sums,
        drift=drift.tolist(),
        open_rewards=reward[whole:].tolist(),
        open_weights=weight[whole:].tolist(),
        at_top=state.at_top + int((rows.rho >= rules.top).sum()),
    )


def mean_weights(evidence: Evidence) -> list[tuple[float, float]]:
    """Return (mean, standard error) of w_c and of w_b; propensities are right only where both means are 1."""
    n = evidence.decisions
    if n == 0:
        return [(1.0, 0.0), (1.0, 0.0)]
    means, squares = evidence.weights[:2] / 2.0**20 / n, evidence.weights[2:] / 2.0**20 / n
    errors = np.sqrt(np.maximum(squares - means**2, 0.0) / n)
    return list(zip(means.tolist(), errors.tolist(), strict=True))


def judge(state: GuardState) -> tuple[Judged, str]:
    """Return what the evidence of a climbing or frozen state asks for, and why."""
    rules, evidence = rules_in(state), evidence_in(state)
    if state.inexact:
        return "frozen", f"{state.inexact} logged propensities are not those of the mixture"
    if evidence.decisions >= AUDIT_MINIMUM:
        for name, (mean, error) in zip(("candidate", "baseline"), mean_weights(evidence), strict=True):
            if abs(mean - 1.0) > AUDIT_Z * error + _TINY:
                return "frozen", f"the mean weight of the {name} is {mean:.4f} +- {error:.4f} and not 1"
    if is_futile(evidence, rules):
        return "killed", "it is worse than the policy in charge"
    if has_drifted(np.array(state.drift), rules):
        return "drifted", "the served mixture fell below the promise"
    # Not from a cap, and not before the top weight was served: what is promoted has been seen in charge.
    top = certified_rung(evidence, rules) == len(rules.rungs) - 1 and state.weight >= rules.top and state.at_top > 0
    if state.status == "climbing" and top and is_better(evidence, rules):
        return "promoted", "served at the top weight and better than the policy in charge"
    return "climbing", ""


def weight_of(state: GuardState, cap: float) -> float:
    """Return the candidate's share that the state allows, at most `cap` (the loop's) and the operator's cap."""
    if state.stopped or state.terms is None or state.status not in ("climbing", "frozen"):
        return 0.0
    rules = rules_in(state)
    rung = 0 if state.status == "frozen" else certified_rung(evidence_in(state), rules)
    return min(rules.rungs[rung], cap, state.cap)
