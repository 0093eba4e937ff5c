"""How a decision on record came about: its draw repeated, its scores and distribution computed anew."""

from __future__ import annotations

from typing import Annotated

import msgspec

from decision.batch import Batch, one
from decision.draw import draw
from decision.fairness.clamp import ClampedPolicy
from decision.features import VERSION, flatten, looked_up
from decision.policy import CappedPolicy, OraclePolicy, features_version_of
from decision.protocols import Policy
from decision.records import Decision, Outcome

_FREE: dict[str, object] = {"type": "object", "additionalProperties": True}
_Object = Annotated[msgspec.Raw, msgspec.Meta(extra_json_schema=_FREE)]


class ExplainedDecision(Decision, frozen=True, kw_only=True, gc=False):
    """A decision record with what it leads to when it is computed once more.

    Attributes:
        action_id: id of the action drawn.
        scores: [k] expected rewards; None where the version is gone or gives none.
        redrawn_index: index that the record's distribution and seed draw now.
        draw_matches: whether that is the logged action at the logged propensity.
        pmf_recomputed_equal: whether the version gives the same distribution again; None where it cannot be asked.
        cap: the version's: no probability is more than cap + 1 times its trusted one; None without a cap.
        pmf_uncapped: [k] what the version says before its cap; None without one.
        pmf_trusted: [k] what it says without a look at the features that the caller supplies; None without a cap.
    """

    context: _Object
    actions: Annotated[msgspec.Raw, msgspec.Meta(extra_json_schema={"type": "array", "items": _FREE})]
    feature_snapshot: _Object = msgspec.field(default_factory=lambda: msgspec.Raw(b"{}"))
    action_id: str
    scores: list[float] | None
    redrawn_index: int
    draw_matches: bool
    pmf_recomputed_equal: bool | None
    cap: float | None
    pmf_uncapped: list[float] | None
    pmf_trusted: list[float] | None


class Explanation(msgspec.Struct, frozen=True):
    """How the decisions under an event id came about, and what was reported of them.

    Attributes:
        event_id: the id.
        loop: the loop.
        decisions: one record, or one for each slot.
        outcomes: reports, in the order in which they arrived.
    """

    event_id: str
    loop: str
    decisions: list[ExplainedDecision]
    outcomes: list[Outcome]


def explained(record: Decision, policy: Policy | None) -> ExplainedDecision:
    """Return `record` explained.

    Args:
        record: as logged.
        policy: the version that it names; None for a baseline, or when it cannot be loaded.

    Raises:
        DecisionError: the policy gives no scores for what was asked.
    """
    scores: list[float] | None = None
    recomputed: bool | None = None
    cap: float | None = None
    uncapped: list[float] | None = None
    trusted: list[float] | None = None
    if policy is not None:
        batch = batch_of(record, features_version_of(policy))
        if isinstance(policy, OraclePolicy):
            scores = policy.scores(batch).tolist()
        if (near := _capped(policy)) is not None:
            cap, trusted = near.cap, near.trusted_pmf(batch).tolist()
            uncapped = near.full.pmf(batch).tolist()
        if record.mode == "online" and record.guard_weight == 0.0:
            recomputed = policy.pmf(batch).tolist() == record.pmf
    again = draw(record.pmf, record.seed)
    return ExplainedDecision(
        **msgspec.structs.asdict(record),
        action_id=record.action_ids[record.action_index],
        scores=scores,
        redrawn_index=again,
        draw_matches=again == record.action_index and record.propensity == record.pmf[again],
        pmf_recomputed_equal=recomputed,
        cap=cap,
        pmf_uncapped=uncapped,
        pmf_trusted=trusted,
    )


def _capped(policy: Policy) -> CappedPolicy | None:
    plain = policy.unclamped if isinstance(policy, ClampedPolicy) else policy
    return plain if isinstance(plain, CappedPolicy) else None


def batch_of(record: Decision, version: int = VERSION) -> Batch:
    """Return the batch of one that the record's pmf was computed on, flattened by the rules of `version`."""
    context = flatten(msgspec.json.decode(record.context), field="context", version=version, cut=True)
    context |= looked_up(msgspec.json.decode(record.feature_snapshot), version=version)
    offered = msgspec.json.decode(record.actions)
    actions = [flatten(action, field="actions", version=version, cut=True) for action in offered]
    return one(context, actions, record.action_ids)
