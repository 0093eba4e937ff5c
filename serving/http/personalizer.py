"""Azure Personalizer's REST interface on the same core: rank, reward, activate and multi-slot rank.

Applications that used Personalizer (v1.0, v1.1-preview) change a URL. The loop is named by the header
``X-Decision-Loop``; an installation with a single loop needs none.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

import msgspec

from decision.errors import FieldError
from serving.core import Core
from serving.problems import ProblemError
from serving.wire import Action, DecideRequest, DecideResponse, OutcomeRequest, Slot, decode

MAX_RANKED = 50
_Features = list[dict[str, Any]]


class _Rankable(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    id: str
    features: _Features = []


class _RankRequest(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    actions: list[_Rankable]
    context_features: _Features = []
    excluded_actions: list[str] = []
    event_id: str | None = None
    defer_activation: bool = False


class _SlotRequest(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    id: str
    baseline_action: str
    features: _Features = []
    excluded_actions: list[str] = []


class _MultiSlotRequest(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    actions: list[_Rankable]
    slots: list[_SlotRequest]
    context_features: _Features = []
    event_id: str | None = None
    defer_activation: bool = False


class _Reward(msgspec.Struct, forbid_unknown_fields=True):
    value: float


class _SlotReward(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    slot_id: str
    value: float


class _SlotRewards(msgspec.Struct, forbid_unknown_fields=True):
    reward: list[_SlotReward]


_rank = msgspec.json.Decoder(_RankRequest)
_multi = msgspec.json.Decoder(_MultiSlotRequest)
_reward = msgspec.json.Decoder(_Reward)
_rewards = msgspec.json.Decoder(_SlotRewards)


async def handle(
    core: Core, method: str, parts: list[str], headers: dict[bytes, bytes], body: bytes
) -> tuple[int, bytes]:
    """Answer one request below ``/personalizer``; returns status and JSON body.

    Raises:
        FieldError: the request does not fit.
        ProblemError: unknown path, loop or method.
    """
    loop = _loop(core, headers)
    match parts:
        case ["v1.0", "rank"]:
            wanted = "rank"
        case ["v1.0", "events", _, ("reward" | "activate") as wanted]:
            pass
        case [version, "multislot", "rank"] if version.startswith("v1.1-preview"):
            wanted = "multislot"
        case [version, "multislot", "events", _, ("reward" | "activate") as wanted] if version.startswith(
            "v1.1-preview"
        ):
            wanted = "slot_rewards" if wanted == "reward" else wanted
        case _:
            raise ProblemError(404, "Personalizer has nothing there")
    if method != "POST":
        raise ProblemError(405, "this path takes POST", headers=((b"allow", b"POST"),))
    if wanted == "rank":
        return 201, msgspec.json.encode(_ranked(await core.decide(loop, _question(decode(_rank, body)))))
    if wanted == "multislot":
        return 201, msgspec.json.encode(_slotted(await core.decide(loop, _slots(decode(_multi, body)))))
    event_id = unquote(parts[-2])
    if wanted == "activate":
        reports = [OutcomeRequest(event_id, 1.0, name="activation", idempotency_key="activation")]
    elif wanted == "reward":
        reports = [OutcomeRequest(event_id, decode(_reward, body).value)]
    else:
        given = decode(_rewards, body).reward
        if not 1 <= len(given) <= MAX_RANKED:
            raise FieldError("reward", wanted=f"1 to {MAX_RANKED} rewards", got=len(given))
        reports = [OutcomeRequest(event_id, r.value, slot=r.slot_id) for r in given]
    await core.report(loop, reports)
    return 204, b""


def _loop(core: Core, headers: dict[bytes, bytes]) -> str:
    named = headers.get(b"x-decision-loop")
    if named is not None:
        return named.decode("latin-1")
    names = core.loops.names()
    if len(names) != 1:
        raise ProblemError(
            404, "name the loop in the header X-Decision-Loop", field="X-Decision-Loop", wanted="a loop", got="absent"
        )
    return names[0]


def _question(asked: _RankRequest) -> DecideRequest:
    _limit(asked.actions)
    return DecideRequest(
        context=_merged(asked.context_features),
        actions=[Action(a.id, _merged(a.features)) for a in asked.actions],
        event_id=asked.event_id,
        excluded_actions=asked.excluded_actions,
        deferred=asked.defer_activation,
    )


def _slots(asked: _MultiSlotRequest) -> DecideRequest:
    _limit(asked.actions)
    ids = {a.id for a in asked.actions}
    for position, slot in enumerate(asked.slots):
        if slot.baseline_action not in ids:
            raise FieldError(f"slots[{position}].baselineAction", wanted="an offered action", got=slot.baseline_action)
    return DecideRequest(
        context=_merged(asked.context_features),
        actions=[Action(a.id, _merged(a.features)) for a in asked.actions],
        event_id=asked.event_id,
        deferred=asked.defer_activation,
        slots=[Slot(s.id, _merged(s.features), s.excluded_actions) for s in asked.slots],
    )


def _limit(actions: list[_Rankable]) -> None:
    if len(actions) > MAX_RANKED:
        raise FieldError("actions", wanted=f"at most {MAX_RANKED} actions", got=len(actions))


def _merged(features: _Features) -> dict[str, Any]:
    """Return Personalizer's list of feature objects as one object; a name that recurs becomes a list."""
    merged: dict[str, Any] = {}
    for entry in features:
        for name, value in entry.items():
            if name in merged and isinstance(merged[name], dict) and isinstance(value, dict):
                merged[name] = {**merged[name], **value}
            elif name in merged:
                kept = merged[name] if isinstance(merged[name], list) else [merged[name]]
                merged[name] = [*kept, value]
            else:
                merged[name] = value
    return merged


def _ranked(response: DecideResponse) -> dict[str, Any]:
    return {"ranking": response.ranking, "eventId": response.event_id, "rewardActionId": response.action_id}


def _slotted(response: DecideResponse) -> dict[str, Any]:
    return {
        "slots": [{"id": s.id, "rewardActionId": s.action_id} for s in response.slots or []],
        "eventId": response.event_id,
    }
