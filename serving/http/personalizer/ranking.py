"""Rank, reward and activate, of one slot and of many.

What was optional may be null, and unknown fields are passed over, as they were.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec

from decision.errors import FieldError, Words
from decision.features import merged
from decision.options import LARGEST_REWARD, LEAST_REWARD, MAX_RANKED
from serving.http.personalizer.addresses import loop_of, operation
from serving.routes import Call, Route
from serving.wire import Action, DecideRequest, DecideResponse, OutcomeRequest, Ranked, Slot, activation, decode

_Features = list[dict[str, Any]]


class RankableAction(msgspec.Struct, rename="camel"):
    """An action and its list of feature objects."""

    id: str
    features: _Features | None = None


class RankRequest(msgspec.Struct, rename="camel"):
    """Which of these actions in this context?"""

    actions: list[RankableAction]
    context_features: _Features | None = None
    excluded_actions: list[str] | None = None
    event_id: str | None = None
    defer_activation: bool | None = None


class SlotRequest(msgspec.Struct, rename="camel"):
    """A slot to fill, with the application's own choice."""

    id: str
    baseline_action: str
    features: _Features | None = None
    excluded_actions: list[str] | None = None


class MultiSlotRankRequest(msgspec.Struct, rename="camel"):
    """Which action for each slot?"""

    actions: list[RankableAction]
    slots: list[SlotRequest]
    context_features: _Features | None = None
    event_id: str | None = None
    defer_activation: bool | None = None


class RewardRequest(msgspec.Struct):
    """The reward of an event."""

    value: float


class SlotReward(msgspec.Struct, rename="camel"):
    """The reward of one slot."""

    slot_id: str
    value: float


class MultiSlotRewardRequest(msgspec.Struct):
    """The rewards of an event's slots."""

    reward: list[SlotReward]


class RankResponse(msgspec.Struct, rename="camel"):
    """The action to show, and every action's probability."""

    ranking: list[Ranked]
    event_id: str
    reward_action_id: str


class SlotResponse(msgspec.Struct, rename="camel"):
    """The action to show in a slot."""

    id: str
    reward_action_id: str


class MultiSlotRankResponse(msgspec.Struct, rename="camel"):
    """The action to show in each slot."""

    slots: list[SlotResponse]
    event_id: str


_rank = msgspec.json.Decoder(RankRequest)
_multi = msgspec.json.Decoder(MultiSlotRankRequest)
_reward = msgspec.json.Decoder(RewardRequest)
_rewards = msgspec.json.Decoder(MultiSlotRewardRequest)


async def _ranks(call: Call) -> bytes:
    loop, asked = loop_of(call), decode(_rank, call.body)
    return msgspec.json.encode(_ranked(asked, await call.core.decide(loop, _question(asked))))


async def _ranks_slots(call: Call) -> bytes:
    loop = loop_of(call)
    return msgspec.json.encode(_slotted(await call.core.decide(loop, _slots(decode(_multi, call.body)))))


async def _rewards_one(call: Call) -> bytes:
    loop, value = loop_of(call), decode(_reward, call.body).value
    _check_reward("value", value)
    await call.core.report(loop, [OutcomeRequest(call.path["event_id"], value)])
    return b""


async def _rewards_slots(call: Call) -> bytes:
    loop, given = loop_of(call), decode(_rewards, call.body).reward
    if not 1 <= len(given) <= MAX_RANKED:
        raise FieldError("reward", wanted=f"1 to {MAX_RANKED} rewards", got=len(given))
    for position, each in enumerate(given):
        _check_reward(f"reward[{position}].value", each.value)
    await call.core.report(loop, [OutcomeRequest(call.path["event_id"], r.value, slot=r.slot_id) for r in given])
    return b""


async def _activates(call: Call) -> bytes:
    await call.core.report(loop_of(call), [activation(call.path["event_id"])])
    return b""


def _check_reward(field: str, value: float) -> None:
    if not LEAST_REWARD <= value <= LARGEST_REWARD:
        got = value if math.isfinite(value) else Words("NaN or infinity")
        raise FieldError(field, wanted=f"{LEAST_REWARD:g} to {LARGEST_REWARD:g}", got=got)


def _question(asked: RankRequest) -> DecideRequest:
    _limit("actions", asked.actions)
    return DecideRequest(
        context=merged(asked.context_features or []),
        actions=_actions(asked.actions),
        event_id=asked.event_id,
        excluded_actions=asked.excluded_actions or [],
        deferred=asked.defer_activation,
    )


def _slots(asked: MultiSlotRankRequest) -> DecideRequest:
    _limit("actions", asked.actions)
    _limit("slots", asked.slots)
    ids = {a.id for a in asked.actions}
    for position, slot in enumerate(asked.slots):
        if slot.baseline_action not in ids:
            raise FieldError(f"slots[{position}].baselineAction", wanted="an offered action", got=slot.baseline_action)
    return DecideRequest(
        context=merged(asked.context_features or []),
        actions=_actions(asked.actions),
        event_id=asked.event_id,
        deferred=asked.defer_activation,
        slots=[Slot(s.id, merged(s.features or []), s.excluded_actions or [], s.baseline_action) for s in asked.slots],
    )


def _actions(offered: Sequence[RankableAction]) -> list[Action]:
    return [Action(a.id, merged(a.features or [])) for a in offered]


def _limit(field: str, given: Sequence[object]) -> None:
    if not 1 <= len(given) <= MAX_RANKED:
        raise FieldError(field, wanted=f"1 to {MAX_RANKED} {field}", got=len(given))


def _ranked(asked: RankRequest, response: DecideResponse) -> RankResponse:
    """Return the answer: excluded actions keep the place that they have in the request, with probability 0."""
    ranking, excluded = list(response.ranking), frozenset(asked.excluded_actions or ())
    for position, action in enumerate(asked.actions):
        if action.id in excluded:
            ranking.insert(position, Ranked(action.id, 0.0))
    return RankResponse(ranking, response.event_id, response.action_id)


def _slotted(response: DecideResponse) -> MultiSlotRankResponse:
    slots = [SlotResponse(slot.id, slot.action_id) for slot in response.slots or []]
    return MultiSlotRankResponse(slots, response.event_id)


_ACTIONS = [{"id": "news", "features": [{"topic": "politics"}]}, {"id": "sport", "features": []}]
_RANKED = {
    "ranking": [{"id": "sport", "probability": 0.5}, {"id": "news", "probability": 0.5}],
    "eventId": "75269AD0-BFEE-4598-8196-C57383D38E10",
    "rewardActionId": "sport",
}
_MULTI = "v1.1-preview"

ROUTES: tuple[Route, ...] = (
    operation(
        "/rank",
        "rank",
        "Choose an action",
        _ranks,
        method="POST",
        role="decide",
        request=RankRequest,
        response=RankResponse,
        status=201,
        errors=(409, 410),
        example={"contextFeatures": [{"hour": 9}], "actions": _ACTIONS},
        answers=_RANKED,
    ),
    operation(
        "/events/{event_id}/reward",
        "rewardEvent",
        "Reward an event",
        _rewards_one,
        method="POST",
        role="report",
        request=RewardRequest,
        status=204,
        example={"value": 1.0},
    ),
    operation(
        "/events/{event_id}/activate",
        "activateEvent",
        "Activate a deferred event",
        _activates,
        method="POST",
        role="report",
        status=204,
    ),
    operation(
        "/multislot/rank",
        "rankSlots",
        "Choose an action for each slot",
        _ranks_slots,
        method="POST",
        role="decide",
        since=_MULTI,
        request=MultiSlotRankRequest,
        response=MultiSlotRankResponse,
        status=201,
        errors=(409, 410),
        example={"actions": _ACTIONS, "slots": [{"id": "top", "baselineAction": "news"}]},
        answers={"slots": [{"id": "top", "rewardActionId": "sport"}], "eventId": _RANKED["eventId"]},
    ),
    operation(
        "/multislot/events/{event_id}/reward",
        "rewardSlots",
        "Reward the slots of an event",
        _rewards_slots,
        method="POST",
        role="report",
        since=_MULTI,
        request=MultiSlotRewardRequest,
        status=204,
        example={"reward": [{"slotId": "top", "value": 1.0}]},
    ),
    operation(
        "/multislot/events/{event_id}/activate",
        "activateSlots",
        "Activate a deferred event with all its slots",
        _activates,
        method="POST",
        role="report",
        since=_MULTI,
        status=204,
    ),
)
