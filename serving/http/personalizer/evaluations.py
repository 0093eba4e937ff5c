"""Offline evaluations: our replay behind Personalizer's operations, its figures in their fields.

Versions that stand in the path know states in small letters and one summary for each policy; 2022-09-01-preview has
expected rewards with intervals, and a series of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec

from decision.errors import FieldError
from pipelines.operations import evaluations
from pipelines.operations.evaluations import Asked, Evaluation, Judged
from pipelines.state.state import State
from serving.event_ids import uuid7
from serving.http.personalizer.addresses import IN_QUERY, in_query, loop_of, operation, query
from serving.http.personalizer.configuration import BY, changed
from serving.http.personalizer.errors import RefusedError
from serving.http.personalizer.learning import PolicyContract, values_of
from serving.routes import JSON, Call, Query, Receive, Route, Scope, Send
from serving.wire import decode

_INVALID = "InvalidEvaluationContract"
_STATES = {"pending": "Running", "completed": "Succeeded", "failed": "Failed", "timeout": "Timeout"}
_DEFAULT_TOP = 100
_T = TypeVar("_T")


class EvaluationContract(msgspec.Struct, rename="camel"):
    """What to evaluate.

    Attributes:
        name: what it is called.
        start_time: earliest time of the decisions; UTC without an offset.
        end_time: time after them.
        policies: learning settings to judge beside the loop's own; each is trained first.
    """

    name: str
    start_time: str
    end_time: str
    policies: list[PolicyContract] | None = None


class PolicySummary(msgspec.Struct, rename="camel"):
    """What a policy would have earned; null where the log cannot say.

    Attributes:
        time_stamp: end of the decisions.
        ips_estimator_numerator: sum of weight times reward.
        ips_estimator_denominator: number of decisions.
        snips_estimator_denominator: sum of the weights.
        aggregate_time_window: time from start to end, ISO 8601.
        confidence_interval: half of the width of the 95% interval.
        average_reward: the estimate to read first, doubly robust where it can be.
    """

    time_stamp: str
    ips_estimator_numerator: float | None
    ips_estimator_denominator: float
    snips_estimator_denominator: float
    aggregate_time_window: str
    confidence_interval: float | None
    average_reward: float | None


class PolicyResult(msgspec.Struct, rename="camel"):
    """A policy and what it would have earned; `summary` has the whole time alone."""

    name: str
    arguments: str
    policy_source: str
    summary: list[PolicySummary]
    total_summary: PolicySummary


class EvaluationResult(msgspec.Struct, rename="camel"):
    """An evaluation.

    Attributes:
        id: its id.
        name: what it is called.
        start_time: earliest time of the decisions.
        end_time: time after them.
        job_id: its id.
        status: `pending`, `completed`, `failed` or `timeout`.
        evaluation_type: `Manual`.
        creation_time: when it was asked for.
        policy_results: what was found; null until it is completed.
        feature_importance: empty.
        optimal_policy: name of the policy whose lower bound is the highest; null until it is completed.
        description: why it failed, in words.
    """

    id: str
    name: str
    start_time: str
    end_time: str
    job_id: str
    status: str
    evaluation_type: str
    creation_time: str
    policy_results: list[PolicyResult] | None
    feature_importance: list[list[str]]
    optimal_policy: str | None
    description: str


class PolicyReference(msgspec.Struct, rename="camel"):
    """A policy of an evaluation.

    Attributes:
        evaluation_id: the evaluation's id.
        policy_name: the policy's name there.
    """

    evaluation_id: str
    policy_name: str


_reference = msgspec.json.Decoder(PolicyReference)
_contract = msgspec.json.Decoder(EvaluationContract)


class _Created:
    """The answer to what was made, with its place."""

    def __init__(self, body: bytes, place: str) -> None:
        self._body, self._place = body, place

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-type", JSON.encode()), (b"location", self._place.encode())]
        await send({"type": "http.response.start", "status": 201, "headers": headers})
        await send({"type": "http.response.body", "body": self._body})


async def _creates(call: Call) -> _Created:
    asked = await _asked(call, uuid7(call.core.clock()))
    place = f"{call.scope['path'].rstrip('/')}/{quote(asked.id, safe='')}"
    return _Created(_encoded(call, asked), place)


async def _starts(call: Call) -> bytes:
    return _encoded(call, await _asked(call, call.path["evaluation_id"]))


async def _reads(call: Call) -> bytes:
    loop, id, now = loop_of(call), call.path["evaluation_id"], _now(call)
    found = await _of_state(call, lambda state: evaluations.read(state, loop, id, now=now))
    if found is None:
        raise _missing(id)
    return _encoded(call, found)


async def _lists(call: Call) -> bytes:
    loop, asked, now = loop_of(call), query(call), _now(call)
    top, skip = _count(asked, "top", _DEFAULT_TOP), _count(asked, "skip", 0)
    found = await _of_state(call, lambda state: evaluations.listed(state, loop, now=now))
    if in_query(call):
        return msgspec.json.encode({"value": [_newer(one, brief=True) for one in found[skip : skip + top]]})
    return msgspec.json.encode([_older(one) for one in found[skip : skip + top]])


async def _deletes(call: Call) -> bytes:
    loop, id = loop_of(call), call.path["evaluation_id"]
    if not await _of_state(call, lambda state: evaluations.remove(state, loop, id, by=BY)):
        raise _missing(id)
    return b""


async def _applies(call: Call) -> bytes:
    loop, asked, now = loop_of(call), decode(_reference, call.body), _now(call)
    found = await _of_state(call, lambda state: evaluations.read(state, loop, asked.evaluation_id, now=now))
    if found is None:
        raise _missing(asked.evaluation_id)
    if found.status != "completed":
        raise RefusedError(400, "InvalidRequest", f"evaluationId: must be one that is completed, is {found.status}")
    values = next((one.values for one in found.asked if one.name == asked.policy_name), None)
    if values is None:
        known = ", ".join(repr(one.name) for one in found.asked) or "none"
        message = f"policyName: must be one of the policies that the evaluation was given: {known}"
        raise RefusedError(404, "LearningSettingsNotFound", message, field="policyName")
    await asyncio.to_thread(changed, call, loop, values, code="InvalidPolicyConfiguration")
    return b""


async def _of_state(call: Call, work: Callable[[State], _T]) -> _T:
    """Return what `work` makes of State, in a thread that may wait for it."""

    def done() -> _T:
        with State(call.core.settings.state_url) as state:
            return work(state)

    return await asyncio.to_thread(done)


async def _asked(call: Call, id: str) -> Evaluation:
    loop, asked = loop_of(call), decode(_contract, call.body)
    return await asyncio.to_thread(_begun, call, loop, id, asked)


def _begun(call: Call, loop: str, id: str, asked: EvaluationContract) -> Evaluation:
    """Record an evaluation and begin to work it out; one that there is goes on as it does."""
    now = _now(call)
    wanted = Evaluation(
        id=id,
        loop=loop,
        name=asked.name[:256],
        start=_time("startTime", asked.start_time),
        end=_time("endTime", asked.end_time),
        asked=[Asked(name=p.name, arguments=p.arguments, values=values_of(p.arguments)) for p in asked.policies or []],
        created_at=now,
    )
    settings = call.core.settings
    try:
        with State(settings.state_url) as state:
            made = evaluations.add(state, wanted, now=now, by=BY)
            if made is wanted:
                try:
                    evaluations.start(settings, loop, id)
                except evaluations.TooManyEvaluationsError:
                    evaluations.remove(state, loop, id, by=BY)
                    raise
    except evaluations.EvaluationExistsError as error:
        raise RefusedError(409, _INVALID, str(error)) from error
    except evaluations.TooManyEvaluationsError as error:
        raise RefusedError(429, "429", str(error)) from error
    except FieldError as error:
        twice = error.field == "policies" and "differ" in error.wanted
        raise RefusedError(400, "DuplicateCustomPolicyNames" if twice else _INVALID, str(error)) from error
    return made


def _encoded(call: Call, one: Evaluation) -> bytes:
    return msgspec.json.encode(_newer(one) if in_query(call) else _older(one))


def _older(one: Evaluation) -> EvaluationResult:
    return EvaluationResult(
        id=one.id,
        name=one.name,
        start_time=_iso(one.start),
        end_time=_iso(one.end),
        job_id=one.id,
        status=one.status,
        evaluation_type="Manual",
        creation_time=_iso(one.created_at),
        policy_results=[_result(one, judged) for judged in one.judged] if one.status == "completed" else None,
        feature_importance=[],
        optimal_policy=one.best,
        description=one.reason,
    )


def _result(one: Evaluation, judged: Judged) -> PolicyResult:
    summary = PolicySummary(
        time_stamp=_iso(one.end),
        ips_estimator_numerator=None if judged.ips is None else judged.ips * judged.rows,
        ips_estimator_denominator=judged.rows,
        snips_estimator_denominator=judged.mean_weight * judged.rows,
        aggregate_time_window=msgspec.to_builtins(one.end - one.start),
        confidence_interval=None if judged.low is None or judged.high is None else (judged.high - judged.low) / 2.0,
        average_reward=judged.value,
    )
    return PolicyResult(judged.name, judged.arguments, judged.origin, [summary], summary)


def _newer(one: Evaluation, *, brief: bool = False) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "id": one.id,
        "name": one.name,
        "startTime": _iso(one.start),
        "endTime": _iso(one.end),
        "status": _STATES[one.status],
        "evaluationType": "Manual",
        "creationTime": _iso(one.created_at),
    }
    if brief:
        return shown
    shown |= {"description": one.reason, "optimalPolicy": one.best}
    if one.status == "completed":
        minutes = round((one.end - one.start) / timedelta(minutes=1))
        value = [_value(judged) for judged in one.judged]
        times = {"startTime": shown["startTime"], "endTime": shown["endTime"]}
        shown["content"] = {**times, "intervalInMinutes": minutes, "value": value}
    return shown


def _value(judged: Judged) -> dict[str, Any]:
    return {
        "name": judged.name,
        "arguments": judged.arguments,
        "policySource": judged.origin,
        "slotId": "",
        "summary": {"expectedReward": judged.value, "confidenceInterval": _interval(judged.low, judged.high)},
        "timeseries": {
            "data": [{"timeStamp": at.until, "confidenceInterval": _interval(at.low, at.high)} for at in judged.trend]
        },
    }


def _interval(low: float | None, high: float | None) -> Sequence[float] | None:
    return None if low is None or high is None else (low, high)


def _missing(id: str) -> RefusedError:
    return RefusedError(404, "EvaluationNotFound", f"there is no evaluation {id[:80]!r}")


def _now(call: Call) -> datetime:
    return datetime.fromtimestamp(call.core.clock(), UTC)


def _iso(at: datetime) -> str:
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _time(field: str, text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text.strip())
        found = found if found.tzinfo is not None else found.replace(tzinfo=UTC)
        return found.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        says = f"{field}: must be a time in ISO 8601, such as 2026-10-01T00:00:00Z, is {text[:80]!r}"
        raise RefusedError(400, _INVALID, says, field=field) from error


def _count(asked: dict[str, str], name: str, default: int) -> int:
    text = asked.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise RefusedError(400, "InvalidRequest", f"{name}: must be a whole number, is {text[:80]!r}", field=name)
    return int(text)


_EXAMPLE = {
    "name": "October",
    "startTime": "2026-10-01T00:00:00Z",
    "endTime": "2026-11-01T00:00:00Z",
    "policies": [{"name": "greedier", "arguments": "--cb_explore_adf --epsilon 0.05 -q ::"}],
}
_ANSWER = {
    "id": "october",
    "name": "October",
    "startTime": "2026-10-01T00:00:00Z",
    "endTime": "2026-11-01T00:00:00Z",
    "jobId": "october",
    "status": "pending",
    "evaluationType": "Manual",
    "creationTime": "2026-11-02T08:00:00Z",
    "policyResults": None,
    "featureImportance": [],
    "optimalPolicy": None,
    "description": "",
}
_PAGE = (
    Query(name="top", text="How many are listed at most"),
    Query(name="skip", text="How many of the latest are passed over"),
)

ROUTES: tuple[Route, ...] = (
    operation(
        "/evaluations",
        "listEvaluations",
        "List the evaluations, the latest first",
        _lists,
        method="GET",
        role="read",
        response=list[EvaluationResult],
        parameters=_PAGE,
        answers=[_ANSWER],
    ),
    operation(
        "/evaluations",
        "createEvaluation",
        "Begin an evaluation",
        _creates,
        method="POST",
        role="admin",
        request=EvaluationContract,
        response=EvaluationResult,
        status=201,
        errors=(409,),
        example=_EXAMPLE,
        answers=_ANSWER,
    ),
    operation(
        "/evaluations/{evaluation_id}",
        "startEvaluation",
        "Begin an evaluation under an id of one's own",
        _starts,
        method="PUT",
        role="admin",
        since=IN_QUERY,
        request=EvaluationContract,
        response=dict,
        errors=(409,),
        example=_EXAMPLE,
        answers={"id": "october", "name": "October", "status": "Running"},
    ),
    operation(
        "/evaluations/{evaluation_id}",
        "readEvaluation",
        "Read an evaluation",
        _reads,
        method="GET",
        role="read",
        response=EvaluationResult,
        answers=_ANSWER,
    ),
    operation(
        "/evaluations/{evaluation_id}",
        "deleteEvaluation",
        "Delete an evaluation",
        _deletes,
        method="DELETE",
        role="admin",
        status=204,
    ),
    operation(
        "/configurations/applyFromEvaluation",
        "applyFromEvaluation",
        "Take over the learning settings of an evaluation; the next training follows them",
        _applies,
        method="POST",
        role="admin",
        since="v1.1-preview.3",
        request=PolicyReference,
        status=204,
        errors=(409,),
        example={"evaluationId": "october", "policyName": "greedier"},
    ),
)
