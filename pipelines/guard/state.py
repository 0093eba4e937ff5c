"""State of a loop's rollout, and the pure steps between two states: fold settled decisions in, judge, move.

Everything a replay needs is here: evidence as exact sums, the drift detector with its open batch, and the position
in each log partition up to which decisions were folded in.
"""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np

from decision.batch import Floats
from decision.guard.drift import after_batch, has_drifted, no_drift
from decision.guard.evidence import Evidence, certified_rung, evidence_of, is_better, is_futile, no_evidence
from decision.guard.rules import GuardRules
from decision.guard.snapshot import Unit
from decision.options import Range
from pipelines.settings import LoopSettings

AUDIT_Z = 4.0
AUDIT_MINIMUM = 1000
"""Decisions below which the mean weights are not judged."""
_TINY = 1e-6  # what rounding to 2^-20 may add to a mean

Status = Literal["off", "idle", "climbing", "frozen", "killed", "promoted"]
EPISODES = -1
"""Where `GuardState.positions` holds the time up to which episodes were folded in; no partition has this number."""
REST_NAME = "others"
"""What the traffic of no listed segment is called."""
Judged = Literal["frozen", "killed", "drifted", "promoted", "climbing"]


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What a rollout's evidence was gathered under; other terms begin it anew.

    Attributes:
        alpha: share of the reward that may be given up.
        delta: error probability of each test, over all attempts of the candidate.
        holdout: share kept from the candidate.
        spacing: distance between rungs.
        batch: decisions per step of the drift detector.
        minimum: smallest reward; smaller ones count as this.
        maximum: largest reward; larger ones count as this.
        reward_version: the reward's definition.
        segment: context field by which weights are kept apart; "" for none.
        segments: its values with a weight of their own; all others share one.
        unit: what is drawn from the mixture at once.
        episode_s: how long after its first decision an episode is over, in seconds.
        episode_maximum: largest sum of an episode's rewards.
        center: what evidence counts rewards from, a share of their range; 0 for the minimum.
    """

    alpha: float
    delta: float
    holdout: float
    spacing: float
    batch: int
    minimum: float
    maximum: float
    reward_version: str
    segment: str = ""
    segments: list[str] = []
    unit: Unit = "decision"
    episode_s: float = 0.0
    episode_maximum: float = 0.0
    center: float = 0.0


class Sums(msgspec.Struct, frozen=True, kw_only=True):
    """`Evidence` as plain integers, see there."""

    decisions: int
    ladder: list[list[int]]
    futility: list[int]
    promotion: list[int]
    weights: list[int]
    clipped: int


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """State of one segment of the traffic.

    Attributes:
        weight: the candidate's share as published.
        killed: the candidate is worse here; it gets nothing.
        sums: the evidence.
        drift: [J] log M of the drift detector.
        open_rewards: rewards of its open batch, scaled to [0, 1].
        open_weights: the baseline's weights of its open batch.
        at_top: units folded in that were served at the top weight.
    """

    weight: float = 0.0
    killed: bool = False
    sums: Sums | None = None
    drift: list[float] = []
    open_rewards: list[float] = []
    open_weights: list[float] = []
    at_top: int = 0


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
        weight: the candidate's share as published, the largest over segments.
        parts: each segment's own state; "" is the traffic of no listed value, or all of it.
        positions: {log partition: offset} below which everything was folded in; of episodes, at `EPISODES`, the time
            in microseconds before which those that began were.
        skipped: settled decisions of the loop left out, by reason.
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
    parts: dict[str, Part] = {}
    positions: dict[int, int] = {}
    skipped: dict[str, int] = {}
    inexact: int = 0
    cap: float = 1.0
    stopped: bool = False
    expires_at: float = 0.0


class Rows(NamedTuple):
    """n settled units of an attempt in decision order: reward in [0, 1], w_c, w_b, rho and segment, each [n]."""

    reward: Floats
    weight_candidate: Floats
    weight_baseline: Floats
    rho: Floats
    segment: np.ndarray[tuple[int], np.dtype[np.str_]]

    def take(self, kept: np.ndarray[Any, Any]) -> Rows:
        """Return the rows at `kept`, a mask or numbers."""
        return Rows(
            self.reward[kept],
            self.weight_candidate[kept],
            self.weight_baseline[kept],
            self.rho[kept],
            self.segment[kept],
        )


RARE = 0.05
"""Mean reward, as a share of the range, below which evidence counts from the minimum: a centre explains nothing."""


def terms_of(loop: LoopSettings, learned: Range, episode: float | None = None, mean: float | None = None) -> Terms:
    """Return the terms that the loop's settings ask for.

    Args:
        loop: its settings.
        learned: the range of rewards that the candidate was trained on; it stands in for bounds that the settings do
            not give. It was fixed before the rollout's first decision, so the promise holds for rewards cut to it.
        episode: the largest sum of an episode's rewards that its training saw, likewise; None where it does not say.
        mean: reward that the candidate was trained on; None where its manifest does not say.
    """
    guard, reward = loop.guard, loop.reward
    low = 0.0 if guard.unit == "episode" else learned.low  # rewards of an episode are added
    minimum = low if reward.minimum is None else reward.minimum
    maximum = learned.high if reward.maximum is None else reward.maximum
    center = 0.0
    if mean is not None and guard.unit != "episode":
        share = min((mean - minimum) / (maximum - minimum), 0.95)
        center = round(share, 6) if share >= RARE else 0.0
    return Terms(
        alpha=guard.alpha,
        delta=guard.delta,
        holdout=guard.holdout,
        spacing=guard.spacing,
        batch=guard.batch,
        minimum=minimum,
        maximum=maximum,
        reward_version=reward.version,
        segment=guard.segment,
        segments=sorted(guard.segments),
        unit=guard.unit,
        episode_s=guard.episode_s if guard.unit == "episode" else 0.0,
        episode_maximum=(guard.episode_maximum or episode or 1.0) if guard.unit == "episode" else 0.0,
        center=center,
    )


def rules_of(terms: Terms, attempt: int) -> GuardRules:
    """Return the rules of a candidate's k-th attempt: its share of the error is 6 / (pi k)^2, which sums to one.

    Segments share that error evenly, and the rate of the drift detector's false alarms; promotion is judged on all of
    the traffic at once.
    """
    count = 1 + len(terms.segments)
    rules = GuardRules(
        alpha=terms.alpha,
        top=1.0 - terms.holdout,
        spacing=terms.spacing,
        batch=terms.batch,
        center=terms.center,
    )
    delta = terms.delta * 6.0 / (math.pi * attempt) ** 2
    return msgspec.structs.replace(
        rules,
        delta=delta / count,
        delta_futility=delta / count,
        delta_promotion=delta,
        drift_threshold=rules.drift_threshold * count,
    )


def rules_in(state: GuardState) -> GuardRules:
    """Return the rules of the state's attempt; it has to have one."""
    assert state.terms is not None  # noqa: S101 - set with every attempt
    return rules_of(state.terms, state.attempt)


def evidence_of_part(part: Part, rules: GuardRules) -> Evidence:
    """Return a segment's evidence."""
    sums = part.sums
    if sums is None:
        return no_evidence(rules)
    return Evidence(
        sums.decisions,
        np.array(sums.ladder, dtype=np.int64),
        np.array(sums.futility, dtype=np.int64),
        np.array(sums.promotion, dtype=np.int64),
        np.array(sums.weights, dtype=np.int64),
        sums.clipped,
    )


def evidence_in(state: GuardState) -> Evidence:
    """Return the evidence of all segments together."""
    rules = rules_in(state)
    total = no_evidence(rules)
    for part in state.parts.values():
        total = total.merge(evidence_of_part(part, rules))
    return total


def without_evidence(state: GuardState) -> GuardState:
    """Return the state as it is before the first decision of its attempt is folded in; positions stay."""
    drift = no_drift(rules_in(state)).tolist()
    listed = [] if state.terms is None else state.terms.segments
    parts = {name: Part(drift=drift) for name in ("", *listed)}
    return msgspec.structs.replace(state, parts=parts, skipped={}, inexact=0)


def next_version(before: GuardState, now: datetime) -> int:
    """Return the version after `before`; the first is the time in seconds, so that a lost file repeats none."""
    return before.guard_version + 1 if before.guard_version else int(now.timestamp())


def begun(state: GuardState, *, attempt: int, version: int, reason: str) -> GuardState:
    """Return the state at the beginning of the candidate's `attempt`-th attempt, published as `version`."""
    return without_evidence(
        msgspec.structs.replace(
            state,
            status="climbing",
            reason=reason,
            pending="",
            attempt=attempt,
            attempt_number=state.attempt_number + 1,
            since_version=version,
            guard_version=version,
        )
    )


def folded(state: GuardState, rows: Rows) -> GuardState:
    """Return the state with `rows`, which follow those folded in before, folded in."""
    rules = rules_in(state)
    found = set(np.unique(rows.segment).tolist())
    parts = {
        name: _folded(part, rows if found == {name} else rows.take(rows.segment == name), rules)
        if name in found
        else part
        for name, part in state.parts.items()
    }
    return msgspec.structs.replace(state, parts=parts)


def _folded(part: Part, rows: Rows, rules: GuardRules) -> Part:
    evidence = evidence_of_part(part, rules).merge(
        evidence_of(rows.reward, rows.weight_candidate, rows.weight_baseline, rows.rho, rules)
    )
    # The detector's steps are batches of fixed size in this order, however the decisions came in.
    drift = np.array(part.drift)
    reward = np.concatenate((np.array(part.open_rewards, dtype=np.float64), rows.reward))
    weight = np.concatenate((np.array(part.open_weights, dtype=np.float64), rows.weight_baseline))
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
        part,
        sums=sums,
        drift=drift.tolist(),
        open_rewards=reward[whole:].tolist(),
        open_weights=weight[whole:].tolist(),
        at_top=part.at_top + int((rows.rho >= rules.top).sum()),
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
                found = f"the mean weight of the {name} is {mean:.4f} +- {error:.4f} and not 1"
                return (
                    "frozen",
                    f"{found}: wrong propensities, or more decisions of one policy left out than of the other",
                )
    parts = list(state.parts.values())
    if all(part.killed or _is_futile(part, rules) for part in parts):
        return "killed", "it is worse than the policy in charge"
    if any(has_drifted(np.array(part.drift), rules) for part in parts if not part.killed):
        return "drifted", "the served mixture fell below the promise"
    # Not from a cap, and not before the top weight was served: what is promoted has been seen in charge everywhere.
    top = all(
        not part.killed
        and certified_rung(evidence_of_part(part, rules), rules) == len(rules.rungs) - 1
        and part.weight >= rules.top
        and part.at_top > 0
        for part in parts
    )
    if state.status == "climbing" and top and is_better(evidence, rules):
        return "promoted", "served at the top weight and better than the policy in charge"
    return "climbing", ""


def weighed(state: GuardState, cap: float) -> GuardState:
    """Return the state with the candidate's shares that it allows, at most `cap` (the loop's) and the operator's."""
    if state.stopped or state.terms is None or state.status not in ("climbing", "frozen"):
        parts = {name: msgspec.structs.replace(part, weight=0.0) for name, part in state.parts.items()}
        return msgspec.structs.replace(state, parts=parts, weight=0.0)
    rules = rules_in(state)
    parts = dict[str, Part]()
    for name, part in state.parts.items():
        killed = part.killed or _is_futile(part, rules)
        rung = 0 if state.status == "frozen" else certified_rung(evidence_of_part(part, rules), rules)
        weight = 0.0 if killed else min(rules.rungs[rung], cap, state.cap)
        parts[name] = msgspec.structs.replace(part, killed=killed, weight=weight)
    return msgspec.structs.replace(state, parts=parts, weight=max(part.weight for part in parts.values()))


def _is_futile(part: Part, rules: GuardRules) -> bool:
    return is_futile(evidence_of_part(part, rules), rules)
