"""What a decision's page shows: how its distribution came about, what its features weigh, and its draw once more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from decision.batch import Batch, Features
from decision.errors import DecisionError
from decision.fairness.clamp import ClampedPolicy
from decision.policy import OraclePolicy, features_version_of
from serving.core import Core
from serving.explaining.explain import ExplainedDecision, batch_of

MOST_FEATURES = 40
_ENDS = 1e-9


class ActionRow(NamedTuple):
    """An action that was offered; None for what nobody knows.

    Attributes:
        action_id: its id.
        drawn: it was.
        score: its expected reward.
        plain: its probability under the policy in charge, before any clamp.
        own: the same after the clamp.
        uncapped: the same before the cap on what the caller supplies, too; None without a cap.
        trusted: without a look at what the caller supplies; None without a cap.
        candidate: under the candidate.
        probability: as drawn from, after everything.
        features: in words.
    """

    action_id: str
    drawn: bool
    score: float | None
    plain: float | None
    own: float | None
    uncapped: float | None
    trusted: float | None
    candidate: float | None
    probability: float
    features: str


class FeatureRow(NamedTuple):
    """A feature: its value, and how much less the drawn action's score would be without it."""

    name: str
    value: float
    adds: float


class DecisionView(NamedTuple):
    """A decision, or one slot of it.

    Attributes:
        record: as explained.
        actions: in the order offered.
        features: those that move the drawn action's score most; empty where the version is gone or has no scores.
        left_out: further features.
        linear: whether the effects add up to the score.
        clamped: the panels' clamp changed the distribution.
        mixed: a candidate had a share.
        context: the context, as JSON for people.
        looked_up: features looked up, as JSON for people; "" for none.
    """

    record: ExplainedDecision
    actions: list[ActionRow]
    features: list[FeatureRow]
    left_out: int
    linear: bool
    clamped: bool
    mixed: bool
    context: str
    looked_up: str


def view_of(core: Core, record: ExplainedDecision) -> DecisionView:
    """Return what is shown of a record; blocking: a version that is not served any more is loaded."""
    policy = core.policy_of(record)
    plain: list[float] | None = None
    features, left_out, linear = list[FeatureRow](), 0, False
    if isinstance(policy, OraclePolicy) and record.scores is not None:
        try:
            batch = batch_of(record, features_version_of(policy))
            before = policy.unclamped if isinstance(policy, ClampedPolicy) else policy
            plain = before.pmf_of(np.array(record.scores), batch).tolist()
            features, left_out = effects(policy, batch, record.action_index, record.scores)
            linear = type(policy.oracle).__name__ == "LinearOracle"
        except (DecisionError, ArithmeticError, LookupError, RuntimeError):  # it asks for more than was logged
            plain = None
    mixed = record.pmf_candidate is not None and record.mode == "online"
    own = record.pmf_baseline if mixed else record.pmf
    rows = [
        ActionRow(
            action_id,
            number == record.action_index,
            None if record.scores is None else record.scores[number],
            None if plain is None else plain[number],
            None if own is None or policy is None else own[number],
            None if record.pmf_uncapped is None else record.pmf_uncapped[number],
            None if record.pmf_trusted is None else record.pmf_trusted[number],
            None if record.pmf_candidate is None else record.pmf_candidate[number],
            record.pmf[number],
            _in_words(offered),
        )
        for number, (action_id, offered) in enumerate(
            zip(record.action_ids, msgspec.json.decode(record.actions), strict=True)
        )
    ]
    changed = plain is not None and own is not None and not np.allclose(plain, own, rtol=0.0, atol=_ENDS)
    looked_up = msgspec.json.decode(record.feature_snapshot)
    return DecisionView(
        record,
        rows,
        features,
        left_out,
        linear,
        changed and isinstance(policy, ClampedPolicy),
        mixed,
        _pretty(msgspec.json.decode(record.context)),
        _pretty(looked_up) if looked_up else "",
    )


def effects(policy: OraclePolicy, batch: Batch, drawn: int, scores: Sequence[float]) -> tuple[list[FeatureRow], int]:
    """Return how much each feature adds to the drawn action's score, the largest first, and how many are left out.

    Args:
        policy: whose scores they are.
        batch: the decision alone.
        drawn: number of its action.
        scores: [k] of its actions.

    Each feature is left out once, and the score taken anew: in a linear model that is its weight times its value, with
    those of its products.
    """
    context, action, action_id = batch.contexts[0], batch.actions[drawn], batch.action_ids[drawn]
    named = [("", name) for name in context] + [("action: ", name) for name in action]
    asked = named[: 10 * MOST_FEATURES]
    if not asked:
        return [], 0
    contexts = [_without(context, name) if not where else context for where, name in asked]
    actions = [_without(action, name) if where else action for where, name in asked]
    without = policy.scores(Batch(contexts, actions, [action_id] * len(asked), np.arange(len(asked) + 1)))
    rows = [
        FeatureRow(f"{where}{name}", (action if where else context)[name], scores[drawn] - float(left))
        for (where, name), left in zip(asked, without, strict=True)
    ]
    moving = sorted((row for row in rows if abs(row.adds) > _ENDS), key=lambda row: -abs(row.adds))
    return moving[:MOST_FEATURES], len(named) - len(moving[:MOST_FEATURES])


def _without(features: Features, name: str) -> dict[str, float]:
    return {each: value for each, value in features.items() if each != name}


def _in_words(features: Any) -> str:
    text = msgspec.json.encode(features).decode() if features else ""
    return text if len(text) <= 200 else f"{text[:200]}…"


def _pretty(value: Any) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
