"""Azure Personalizer's REST interface on the same core: rank, reward, activate and multi-slot rank.

Applications that used Personalizer (v1.0, v1.1-preview) change a URL. The loop is named by the header
``X-Decision-Loop``; an installation with a single loop needs none.
"""

from __future__ import annotations

from typing import Any

import msgspec

from decision.errors import FieldError
from decision.features import merged
from serving.problems import ProblemError
from serving.routes import Answer, Call, Query, Route
from serving.wire import Action, DecideRequest, DecideResponse, OutcomeRequest, Ranked, Slot, activation, decode

MAX_RANKED = 50
VERSIONS = ("v1.1-preview", "v1.1-preview.1", "v1.1-preview.2", "v1.1-preview.3")
_Features = list[dict[str, Any]]


class RankableAction(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    """An action and its list of feature objects."""

    id: str
    features: _Features = []


class RankRequest(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    """Which of these actions in this context?"""

    actions: list[RankableAction]
    context_features: _Features = []
    excluded_actions: list[str] = []
    event_id: str | None = None
    defer_activation: bool = False


class SlotRequest(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    """A slot to fill, with the application's own choice."""

    id: str
    baseline_action: str
    features: _Features = []
    excluded_actions: list[str] = []


class MultiSlotRankRequest(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    """Which action for each slot?"""

    actions: list[RankableAction]
    slots: list[SlotRequest]
    context_features: _Features = []
    event_id: str | None = None
    defer_activation: bool = False


class RewardRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The reward of an event."""

    value: float


class SlotReward(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    """The reward of one slot."""

    slot_id: str
    value: float


class MultiSlotRewardRequest(msgspec.Struct, forbid_unknown_fields=True):
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
    loop = _loop(call)
    return msgspec.json.encode(_ranked(await call.core.decide(loop, _question(decode(_rank, call.body)))))


async def _ranks_slots(call: Call) -> bytes:
    loop = _loop(call)
    return msgspec.json.encode(_slotted(await call.core.decide(loop, _slots(decode(_multi, call.body)))))


async def _rewards_one(call: Call) -> bytes:
    report = OutcomeRequest(call.path["event_id"], decode(_reward, call.body).value)
    await call.core.report(_loop(call), [report])
    return b""


async def _rewards_slots(call: Call) -> bytes:
    loop, given = _loop(call), decode(_rewards, call.body).reward
    if not 1 <= len(given) <= MAX_RANKED:
        raise FieldError("reward", wanted=f"1 to {MAX_RANKED} rewards", got=len(given))
    await call.core.report(loop, [OutcomeRequest(call.path["event_id"], r.value, slot=r.slot_id) for r in given])
    return b""


async def _activates(call: Call) -> bytes:
    await call.core.report(_loop(call), [activation(call.path["event_id"])])
    return b""


def _loop(call: Call) -> str:
    named = call.headers.get(b"x-decision-loop")
    if named is not None:
        call.check_loop(named.decode("latin-1"))
        return named.decode("latin-1")
    names = call.loops()
    if len(names) != 1:
        raise ProblemError(
            404, "name the loop in the header X-Decision-Loop", field="X-Decision-Loop", wanted="a loop", got="absent"
        )
    return names[0]


def _question(asked: RankRequest) -> DecideRequest:
    _limit(asked.actions)
    return DecideRequest(
        context=merged(asked.context_features),
        actions=[Action(a.id, merged(a.features)) for a in asked.actions],
        event_id=asked.event_id,
        excluded_actions=asked.excluded_actions,
        deferred=asked.defer_activation,
    )


def _slots(asked: MultiSlotRankRequest) -> DecideRequest:
    _limit(asked.actions)
    ids = {a.id for a in asked.actions}
    for position, slot in enumerate(asked.slots):
        if slot.baseline_action not in ids:
            raise FieldError(f"slots[{position}].baselineAction", wanted="an offered action", got=slot.baseline_action)
    return DecideRequest(
        context=merged(asked.context_features),
        actions=[Action(a.id, merged(a.features)) for a in asked.actions],
        event_id=asked.event_id,
        deferred=asked.defer_activation,
        slots=[Slot(s.id, merged(s.features), s.excluded_actions, s.baseline_action) for s in asked.slots],
    )


def _limit(actions: list[RankableAction]) -> None:
    if len(actions) > MAX_RANKED:
        raise FieldError("actions", wanted=f"at most {MAX_RANKED} actions", got=len(actions))


def _ranked(response: DecideResponse) -> RankResponse:
    return RankResponse(response.ranking, response.event_id, response.action_id)


def _slotted(response: DecideResponse) -> MultiSlotRankResponse:
    slots = [SlotResponse(slot.id, slot.action_id) for slot in response.slots or []]
    return MultiSlotRankResponse(slots, response.event_id)


_ACTIONS = [{"id": "news", "features": [{"topic": "politics"}]}, {"id": "sport", "features": []}]
_RANKED = {
    "ranking": [{"id": "sport", "probability": 0.5}, {"id": "news", "probability": 0.5}],
    "eventId": "75269AD0-BFEE-4598-8196-C57383D38E10",
    "rewardActionId": "sport",
}
_LOOP = Query(name="X-Decision-Loop", text="The loop; not needed where there is one only", where="header")


def _route(path: str, name: str, summary: str, answer: Answer, **rest: Any) -> Route:
    return Route(
        method="POST",
        path=f"/personalizer{path}",
        name=name,
        tag="personalizer",
        summary=summary,
        answer=answer,
        role="decide" if path.endswith("/rank") else "report",
        parameters=(_LOOP,),
        **rest,
    )


def _multi_slot(version: str) -> tuple[Route, ...]:
    name = version.removeprefix("v1.1-preview").replace(".", "Preview") or "Preview"
    events = f"/{version}/multislot/events/{{event_id}}"
    return (
        _route(
            f"/{version}/multislot/rank",
            f"rankSlots{name}",
            "Choose an action for each slot",
            _ranks_slots,
            request=MultiSlotRankRequest,
            response=MultiSlotRankResponse,
            status=201,
            errors=(409, 410),
            example={"actions": _ACTIONS, "slots": [{"id": "top", "baselineAction": "news"}]},
            answers={"slots": [{"id": "top", "rewardActionId": "sport"}], "eventId": _RANKED["eventId"]},
        ),
        _route(
            f"{events}/reward",
            f"rewardSlots{name}",
            "Reward the slots of an event",
            _rewards_slots,
            request=MultiSlotRewardRequest,
            status=204,
            example={"reward": [{"slotId": "top", "value": 1.0}]},
        ),
        _route(f"{events}/activate", f"activateSlots{name}", "Activate a deferred event", _activates, status=204),
    )


ROUTES = (
    _route(
        "/v1.0/rank",
        "rank",
        "Choose an action",
        _ranks,
        request=RankRequest,
        response=RankResponse,
        status=201,
        errors=(409, 410),
        example={"contextFeatures": [{"hour": 9}], "actions": _ACTIONS},
        answers=_RANKED,
    ),
    _route(
        "/v1.0/events/{event_id}/reward",
        "rewardEvent",
        "Reward an event",
        _rewards_one,
        request=RewardRequest,
        status=204,
        example={"value": 1.0},
    ),
    _route("/v1.0/events/{event_id}/activate", "activateEvent", "Activate a deferred event", _activates, status=204),
    *(route for version in VERSIONS for route in _multi_slot(version)),
)
