"""The shapes of requests and responses; unknown fields are refused, errors name the field."""

from __future__ import annotations

import json
import math
from typing import Annotated, Any, TypeVar

import msgspec

from decision.errors import FieldError, Words
from decision.records import MAX_ACTIONS, MAX_ID_CHARS
from decision.validation import ABSENT, field_error
from pipelines.evaluation.agreement import Agreement
from pipelines.log.slates import MAX_SLOTS

MAX_BATCH = 1_000
MAX_OUTCOMES = 1_000
MAX_STEP = (1 << 31) - 1


# Limits that the schema says; `check_decide` and `check_id` hold them, with errors that tell the value.
Id = Annotated[str, msgspec.Meta(extra_json_schema={"minLength": 1, "maxLength": MAX_ID_CHARS})]
Ids = Annotated[list[str], msgspec.Meta(extra_json_schema={"maxItems": MAX_ACTIONS})]
Step = Annotated[int, msgspec.Meta(extra_json_schema={"minimum": 0, "maximum": MAX_STEP})]


class Action(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """An action as offered.

    Attributes:
        id: its id, unique in the request.
        features: JSON object of features.
    """

    id: Id
    features: dict[str, Any] = {}


class Slot(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A position to fill.

    Attributes:
        id: its id, unique in the request.
        features: JSON object of features.
        excluded_actions: ids that may not stand here.
        baseline_action: the application's own choice, an id of `actions`: what the baseline `first` takes here, as long
            as no earlier slot has it; the first action offered when absent.
    """

    id: Id
    features: dict[str, Any] = {}
    excluded_actions: Ids = []
    baseline_action: Id | None = None


class DecideRequest(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A question: which of these actions in this context?

    Attributes:
        context: JSON object of features.
        actions: what may be chosen, in the application's order.
        event_id: the decision's id; a UUIDv7 when absent.
        excluded_actions: ids that may not be chosen this time.
        subject_id: whom it is for; key of the online features.
        episode_id: session it belongs to.
        step: 0-based position in the session.
        deferred: counts only once activated; the loop's setting when absent.
        slots: positions to fill one after another, each action at most once.
    """

    context: dict[str, Any]
    actions: Annotated[list[Action], msgspec.Meta(extra_json_schema={"minItems": 1, "maxItems": MAX_ACTIONS})]
    event_id: Id | None = None
    excluded_actions: Ids = []
    subject_id: Id | None = None
    episode_id: Id | None = None
    step: Step | None = None
    deferred: bool | None = None
    slots: Annotated[list[Slot], msgspec.Meta(extra_json_schema={"minItems": 1, "maxItems": MAX_SLOTS})] | None = None


class BatchRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Many questions; each is answered or refused on its own."""

    decisions: Annotated[list[DecideRequest], msgspec.Meta(extra_json_schema={"minItems": 1, "maxItems": MAX_BATCH})]


class OutcomeRequest(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """Something that happened after a decision.

    Attributes:
        event_id: the decision it belongs to.
        value: the number reported.
        slot: slot of a multi-slot decision.
        name: ``reward`` or the application's own.
        idempotency_key: reports that share it count once.
        ts: when it happened, RFC 3339 with offset; now when absent.
        action_id: the action that it followed, as the decision's answer named it; it counts for no other.
    """

    event_id: Id
    value: float
    slot: Annotated[str, msgspec.Meta(extra_json_schema={"maxLength": MAX_ID_CHARS})] = ""
    name: Id = "reward"
    idempotency_key: Id | None = None
    ts: Annotated[str, msgspec.Meta(extra_json_schema={"format": "date-time"})] | None = None
    action_id: Id | None = None


class ActivateRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The deferred decision was used after all; `action_id` as in `OutcomeRequest`."""

    event_id: Id
    slot: Annotated[str, msgspec.Meta(extra_json_schema={"maxLength": MAX_ID_CHARS})] = ""
    action_id: Id | None = None


def activation(event_id: str, slot: str = "", action_id: str | None = None) -> OutcomeRequest:
    """Return the report that activates a deferred decision."""
    named = {"name": "activation", "idempotency_key": "activation"}
    return OutcomeRequest(event_id, 1.0, slot=slot, action_id=action_id, **named)


class Ranked(msgspec.Struct, gc=False):
    """An action with its probability of being drawn."""

    id: str
    probability: float


class SlotAnswer(msgspec.Struct, gc=False):
    """What was drawn for one slot."""

    id: str
    action_id: str
    propensity: float
    ranking: list[Ranked]


class DecideResponse(msgspec.Struct, omit_defaults=True, gc=False):
    """The answer.

    Attributes:
        event_id: the decision's id.
        action_id: the action drawn (of the first slot, when there are several).
        propensity: the exact probability with which it was drawn.
        ranking: the drawn action first, the others by probability.
        policy_version: version in charge when it was drawn.
        mode: the loop's mode.
        slots: every slot's draw, for multi-slot requests.
    """

    event_id: str
    action_id: str
    propensity: float
    ranking: list[Ranked]
    policy_version: str
    mode: str
    slots: list[SlotAnswer] | None = None


class Accepted(msgspec.Struct):
    """How many reports are on disk now."""

    accepted: int


class LoopNames(msgspec.Struct):
    """Names of the installation's loops."""

    loops: list[str]


class GuardDescription(msgspec.Struct, omit_defaults=True):
    """A loop's guard.

    Attributes:
        weight: the candidate's share now; the largest, where segments have shares of their own.
        published_weight: the largest share as published.
        version: version of the published snapshot; 0 without one.
        segments: shares by segment.
    """

    weight: float
    published_weight: float
    version: int
    segments: dict[str, float] | None = None


class ProcessCounts(msgspec.Struct):
    """What the answering process did in a loop since it started; `doubtful` outcomes by the field in doubt."""

    decided: int
    repeated: int
    outcomes: int
    fallbacks: int
    spool_depth: int
    doubtful: dict[str, int] = {}


class LoopDescription(msgspec.Struct):
    """A loop as it runs.

    Attributes:
        loop: its name.
        settings: as read from its file.
        policy_version: version in charge, or the baseline's name.
        baseline_version: the reference.
        candidate_version: version being rolled out, if any.
        guard: the guard's state.
        error: why the loop does not run as its settings and registry say, if so.
        process: what the answering process did.
        counters: the lake's counters; null while there is no lake, or no moment at which its tables stood still.
        agreement: in apprentice mode, how often the newest version would have done what the application did, as the
            last night found; null otherwise.
    """

    loop: str
    settings: dict[str, Any]
    policy_version: str
    baseline_version: str
    candidate_version: str | None
    guard: GuardDescription
    error: str | None
    process: ProcessCounts
    counters: dict[str, Any] | None
    agreement: Agreement | None


class Alive(msgspec.Struct):
    """The process answers."""

    alive: bool


class Ready(msgspec.Struct):
    """Decisions can be taken now."""

    ready: bool


class Problem(msgspec.Struct, omit_defaults=True):
    """RFC 9457 problem document."""

    type: str
    title: str
    status: int
    detail: str
    field: str | None = None
    wanted: str | None = None
    got: str | None = None


class BatchResponse(msgspec.Struct):
    """The answers in the order of the questions; a problem document where one was refused."""

    decisions: list[Any]


_T = TypeVar("_T")


def decode(decoder: msgspec.json.Decoder[_T], body: bytes) -> _T:
    """Return the decoded request.

    Raises:
        FieldError: it is no JSON, or a field is missing, unknown or of the wrong type.
    """
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        value = _read(body)
        path = _not_finite(value)
        if path is not None:
            raise FieldError(path, wanted="a finite number", got=Words("NaN or infinity")) from error
        raise field_error(error, decoder.type, value) from error
    except RecursionError as error:
        raise FieldError("body", wanted="nested less deeply", got=Words("nested too deeply")) from error


def _read(body: bytes) -> Any:
    """Return a body that was refused as plain values, NaN and infinity among them; `ABSENT` when it is no JSON."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return ABSENT


def _not_finite(value: Any) -> str | None:
    """Return the path of the first NaN or infinity in a body that was refused, or None.

    JSON has no NaN, so strict decoders only say "malformed"; many clients send it all the same.
    """
    pending: list[tuple[str, Any]] = [("", value)]
    while pending:
        path, value = pending.pop()
        if isinstance(value, float) and not math.isfinite(value):
            return path or "body"
        if isinstance(value, dict):
            pending += [(f"{path}.{key}" if path else str(key), item) for key, item in value.items()]
        elif isinstance(value, list):
            pending += [(f"{path}[{i}]", item) for i, item in enumerate(value)]
    return None


def check_action_ids(ids: list[str]) -> None:
    """Refuse ids of offered actions that are too many, too long or used twice.

    Raises:
        FieldError: naming the first that does not fit.
    """
    if not 1 <= len(ids) <= MAX_ACTIONS:
        raise FieldError("actions", wanted=f"1 to {MAX_ACTIONS} actions", got=len(ids))
    for position, action_id in enumerate(ids):
        if not 1 <= len(action_id) <= MAX_ID_CHARS:
            check_id(f"actions[{position}].id", action_id)
    if len(set(ids)) != len(ids):
        twice = next(i for i, action_id in enumerate(ids) if action_id in ids[:i])
        raise FieldError(f"actions[{twice}].id", wanted="an id not used before in this request", got=ids[twice])


def check_decide(request: DecideRequest) -> None:
    """Refuse what the types cannot say, the actions apart.

    Raises:
        FieldError: naming the first field that does not fit.
    """
    if request.event_id is not None:
        check_id("event_id", request.event_id)
    if request.subject_id is not None:
        check_id("subject_id", request.subject_id)
    if request.episode_id is not None:
        check_id("episode_id", request.episode_id)
    if request.step is not None and not 0 <= request.step <= MAX_STEP:
        raise FieldError("step", wanted="0 to 2^31 - 1", got=request.step)
    if len(request.excluded_actions) > MAX_ACTIONS:
        raise FieldError("excluded_actions", wanted=f"at most {MAX_ACTIONS} ids", got=len(request.excluded_actions))
    if request.slots is not None:
        if not 1 <= len(request.slots) <= MAX_SLOTS:
            raise FieldError("slots", wanted=f"1 to {MAX_SLOTS} slots", got=len(request.slots))
        for position, slot in enumerate(request.slots):
            check_id(f"slots[{position}].id", slot.id)
        if len({slot.id for slot in request.slots}) != len(request.slots):
            raise FieldError("slots", wanted="distinct slot ids", got=[slot.id for slot in request.slots])


def check_id(field: str, value: str) -> None:
    """Refuse an id that is empty, too long or holds control characters.

    Raises:
        FieldError: naming `field`.
    """
    if not 1 <= len(value) <= MAX_ID_CHARS or not value.isprintable():
        raise FieldError(field, wanted=f"1 to {MAX_ID_CHARS} printable characters", got=value)
