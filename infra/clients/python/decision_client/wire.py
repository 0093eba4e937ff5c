"""The shapes of requests and answers, named and written as the service's OpenAPI document has them.

Requests leave out what was not given. Answers may have fields that this version does not know: they are ignored, so an
older client goes on with a newer service.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec


class Action(msgspec.Struct, omit_defaults=True, frozen=True):
    """An action as offered.

    Attributes:
        id: its id, unique in the request, 1 to 256 characters.
        features: JSON object of features.
    """

    id: str
    features: dict[str, Any] = {}


class Slot(msgspec.Struct, omit_defaults=True, frozen=True):
    """A position to fill.

    Attributes:
        id: its id, unique in the request.
        features: JSON object of features.
        excluded_actions: ids that may not stand here.
        baseline_action: the application's own choice here; the first action offered when absent.
    """

    id: str
    features: dict[str, Any] = {}
    excluded_actions: list[str] = []
    baseline_action: str | None = None


class DecideRequest(msgspec.Struct, omit_defaults=True, frozen=True):
    """A question: which of these actions in this context?

    Attributes:
        context: JSON object of features.
        actions: what may be chosen, in the application's order; the fallback takes the first.
        event_id: the decision's id; the client makes one when absent, so that it can ask again.
        excluded_actions: ids that may not be chosen this time.
        subject_id: whom it is for; key of the online features.
        episode_id: session it belongs to.
        step: 0-based position in the session.
        deferred: counts only once activated; the loop's setting when absent.
        slots: positions to fill one after another, each action at most once.
    """

    context: dict[str, Any]
    actions: list[Action]
    event_id: str | None = None
    excluded_actions: list[str] = []
    subject_id: str | None = None
    episode_id: str | None = None
    step: int | None = None
    deferred: bool | None = None
    slots: list[Slot] | None = None


class OutcomeRequest(msgspec.Struct, omit_defaults=True, frozen=True):
    """Something that happened after a decision.

    Attributes:
        event_id: the decision it belongs to.
        value: the number reported; finite.
        slot: slot of a multi-slot decision.
        name: ``reward`` or the application's own.
        idempotency_key: reports that share it count once; the client makes one when absent, so that it can send again.
        ts: when it happened, RFC 3339 with offset; the moment of the report when absent.
        action_id: the action that it followed; it counts for no other. `DecideResponse.outcome` fills it in.
    """

    event_id: str
    value: float
    slot: str = ""
    name: str = "reward"
    idempotency_key: str | None = None
    ts: str | None = None
    action_id: str | None = None


def activation(event_id: str, slot: str = "", action_id: str | None = None) -> OutcomeRequest:
    """Return the report that activates a deferred decision; a repeat counts once."""
    return OutcomeRequest(event_id, 1.0, slot, "activation", idempotency_key="activation", action_id=action_id)


class Ranked(msgspec.Struct, frozen=True):
    """An action with its probability of being drawn."""

    id: str
    probability: float


class SlotAnswer(msgspec.Struct, frozen=True):
    """What was drawn for one slot."""

    id: str
    action_id: str
    propensity: float
    ranking: list[Ranked]


class Fallback(msgspec.Struct, frozen=True):
    """Why the service did not decide. The decision is no part of the loop's history: nothing is learned from it.

    Attributes:
        reason: what went wrong, as a sentence.
        maybe_logged: whether the service may hold a decision under this id that the application never saw.
    """

    reason: str
    maybe_logged: bool


class DecideResponse(msgspec.Struct, omit_defaults=True, frozen=True):
    """The answer.

    Attributes:
        event_id: the decision's id.
        action_id: the action drawn (of the first slot, when there are several).
        propensity: the exact probability with which it was drawn; 1 for a fallback.
        ranking: the drawn action first, the others by probability.
        policy_version: version in charge when it was drawn; ``fallback:first`` for a fallback.
        mode: the loop's mode; ``fallback`` for a fallback.
        slots: every slot's draw, for multi-slot requests.
        fallback: why the client took the first action itself; None where the service decided.
    """

    event_id: str
    action_id: str
    propensity: float
    ranking: list[Ranked]
    policy_version: str
    mode: str
    slots: list[SlotAnswer] | None = None
    fallback: Fallback | None = None

    def outcome(
        self, value: float, *, slot: str = "", name: str = "reward", ts: str | None = None, key: str | None = None
    ) -> OutcomeRequest:
        """Return the report of what followed this decision; it names the action, so it can count for no other.

        Args:
            value: the number reported.
            slot: slot of a multi-slot decision; the first one's action stands for the whole event when empty.
            name: ``reward`` or the application's own.
            ts: when it happened, RFC 3339 with offset.
            key: idempotency key.

        Raises:
            ValueError: the decision has no such slot.
        """
        action = self.action_id if not slot else next((s.action_id for s in self.slots or () if s.id == slot), None)
        if action is None:
            raise ValueError(f"slot: must be one of {[s.id for s in self.slots or ()]}, is {slot!r}")
        return OutcomeRequest(self.event_id, value, slot, name, idempotency_key=key, ts=ts, action_id=action)


class Problem(msgspec.Struct, omit_defaults=True, frozen=True):
    """A problem document (RFC 9457): why a request was refused.

    Attributes:
        type: kind of problem, a URN.
        title: the kind in words.
        status: HTTP status.
        detail: what is wrong, as a sentence.
        field: the field at fault.
        wanted: what it must be.
        got: what it is.
    """

    type: str = "about:blank"
    title: str = ""
    status: int = 0
    detail: str = ""
    field: str | None = None
    wanted: str | None = None
    got: str | None = None


def invalid(field: str, wanted: str, got: object) -> Problem:
    """Return the problem that the service would answer with, for what can be seen here."""
    title = "Invalid request"
    return Problem(
        "urn:decision:problem:invalid-request",
        title,
        422,
        f"{field}: must be {wanted}, is {got}",
        field,
        wanted,
        f"{got}",
    )


def not_finite(value: Any, path: str = "") -> str | None:
    """Return the path of the first NaN or infinity in plain values, or None.

    JSON has neither, and an encoder writes them as null, which the service reads as missing: nobody would be told.
    """
    pending = [(path, value)]
    while pending:
        at, each = pending.pop()
        if isinstance(each, float) and not math.isfinite(each):
            return at or "body"
        if isinstance(each, dict):
            pending += [(f"{at}.{name}" if at else str(name), item) for name, item in reversed(each.items())]
        elif isinstance(each, list | tuple):
            pending += [(f"{at}[{n}]", item) for n, item in reversed(list(enumerate(each)))]
    return None
