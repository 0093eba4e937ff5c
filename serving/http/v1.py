"""The service's own routes: loops, decisions, outcomes, explanations."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import parse_qs

import msgspec

from decision.errors import FieldError, Words
from decision.records import SCHEMA_VERSION
from serving.deciding.question import read_question, read_questions
from serving.errors import ErasedDecisionError, UnknownDecisionError
from serving.explaining.explain import Explanation
from serving.problems import problem_of
from serving.routes import MAX_BATCH_BODY, Call, Query, Route
from serving.wire import (
    MAX_OUTCOMES,
    Accepted,
    ActivateRequest,
    BatchRequest,
    BatchResponse,
    DecideRequest,
    DecideResponse,
    LoopDescription,
    LoopNames,
    OutcomeRequest,
    Problem,
    activation,
    decode,
)

_encode = msgspec.json.encode
_outcome_decoder = msgspec.json.Decoder(OutcomeRequest | list[OutcomeRequest])
_activate_decoder = msgspec.json.Decoder(ActivateRequest)


async def _loops(call: Call) -> bytes:
    return _encode(LoopNames(call.loops()))


async def _describe(call: Call) -> bytes:
    return _encode(await asyncio.to_thread(call.core.describe, call.path["loop"]))


async def _decide(call: Call) -> bytes:
    core, loop = call.core, call.path["loop"]
    core.snapshot(loop)
    return _encode(await core.answer(loop, read_question(call.body, core.catalogues)))


async def _batch(call: Call) -> bytes:
    core, loop = call.core, call.path["loop"]
    core.snapshot(loop)
    answers = await core.answer_many(loop, read_questions(call.body, core.catalogues))
    return _encode(BatchResponse([_refused(each) if isinstance(each, Exception) else each for each in answers]))


def _refused(error: Exception) -> Problem:
    problem = problem_of(error)
    if problem is None:
        raise error
    return problem.problem


async def _outcomes(call: Call) -> bytes:
    call.core.snapshot(call.path["loop"])
    reports = decode(_outcome_decoder, call.body)
    reports = reports if isinstance(reports, list) else [reports]
    if not 1 <= len(reports) <= MAX_OUTCOMES:
        raise FieldError("outcomes", wanted=f"1 to {MAX_OUTCOMES} reports", got=len(reports))
    return _encode(Accepted(await call.core.report(call.path["loop"], reports)))


async def _activate(call: Call) -> bytes:
    call.core.snapshot(call.path["loop"])
    asked = decode(_activate_decoder, call.body)
    report = activation(asked.event_id, asked.slot, asked.action_id)
    return _encode(Accepted(await call.core.report(call.path["loop"], [report])))


async def _explain(call: Call) -> bytes:
    try:
        asked = parse_qs(call.scope.get("query_string", b"").decode("latin-1"), max_num_fields=_MAX_QUERY)
    except ValueError as error:
        raise FieldError("query", wanted=f"at most {_MAX_QUERY} fields", got=Words("more")) from error
    loop = asked.get("loop", [""])[0]
    if loop:
        call.check_loop(loop)
    return _encode(await asyncio.to_thread(_explained, call, loop))


def _explained(call: Call, loop: str) -> Explanation:
    """Return the explanation of the first decision under the id that is there for the caller."""
    event_id = call.path["event_id"]
    if loop or call.caller.sees_all():
        return call.core.explain(event_id, loop)
    erased: ErasedDecisionError | None = None
    for name in call.loops():
        try:
            return call.core.explain(event_id, name)
        except UnknownDecisionError:
            continue
        except ErasedDecisionError as error:
            erased = error
    raise erased or UnknownDecisionError(event_id)


_MAX_QUERY = 8
_QUESTION = {"context": {"hour": 9}, "actions": [{"id": "a"}, {"id": "b", "features": {"price": 3.5}}]}
_ID = "019aca5e-5e1f-7c3b-9d2a-2f6f8c1d4b7e"
_ANSWER = {
    "event_id": _ID,
    "action_id": "b",
    "propensity": 0.5,
    "ranking": [{"id": "b", "probability": 0.5}, {"id": "a", "probability": 0.5}],
    "policy_version": "baseline:uniform",
    "mode": "online",
}
_DESCRIPTION = {
    "loop": "news",
    "settings": {"name": "news"},
    "policy_version": "3",
    "baseline_version": "baseline:uniform",
    "candidate_version": None,
    "guard": {"weight": 0.0, "published_weight": 0.0, "version": 0},
    "error": None,
    "process": {"decided": 812, "repeated": 0, "outcomes": 640, "fallbacks": 0, "spool_depth": 0, "doubtful": {}},
    "counters": None,
    "agreement": None,
}
_EXPLANATION: dict[str, Any] = {
    "event_id": _ID,
    "loop": "news",
    "decisions": [
        {
            "schema_version": SCHEMA_VERSION,
            "loop": "news",
            "event_id": _ID,
            "slot": "",
            "ts": "2026-11-28T09:00:00Z",
            "subject_id": None,
            "episode_id": None,
            "step": None,
            "context": {"hour": 9},
            "actions": [{}, {"price": 3.5}],
            "action_ids": ["a", "b"],
            "pmf": [0.5, 0.5],
            "action_index": 1,
            "propensity": 0.5,
            "pmf_baseline": [0.5, 0.5],
            "pmf_candidate": None,
            "guard_weight": 0.0,
            "guard_version": 0,
            "mode": "online",
            "deferred": False,
            "policy_version": "baseline:uniform",
            "baseline_version": "baseline:uniform",
            "feature_snapshot": {},
            "seed": 4_503_599_627_370_497,
            "pass_probability": 1.0,
            "settings_version": 3,
            "action_id": "b",
            "scores": None,
            "redrawn_index": 1,
            "draw_matches": True,
            "pmf_recomputed_equal": None,
            "cap": None,
            "pmf_uncapped": None,
            "pmf_trusted": None,
        }
    ],
    "outcomes": [],
}

ROUTES = (
    Route(
        method="GET",
        path="/v1/loops",
        name="listLoops",
        tag="loops",
        summary="List the loops",
        answer=_loops,
        role="read",
        response=LoopNames,
        answers={"loops": ["news"]},
    ),
    Route(
        method="GET",
        path="/v1/loops/{loop}",
        name="describeLoop",
        tag="loops",
        summary="Describe a loop: settings, versions, guard, counters",
        answer=_describe,
        role="read",
        response=LoopDescription,
        answers=_DESCRIPTION,
    ),
    Route(
        method="POST",
        path="/v1/loops/{loop}/decide",
        name="decide",
        tag="decisions",
        summary="Choose one action, or one for each slot",
        answer=_decide,
        role="decide",
        request=DecideRequest,
        response=DecideResponse,
        errors=(409, 410),
        example=_QUESTION,
        answers=_ANSWER,
    ),
    Route(
        method="POST",
        path="/v1/loops/{loop}/decide/batch",
        name="decideBatch",
        tag="decisions",
        summary="Decide many questions, each answered or refused on its own",
        answer=_batch,
        role="decide",
        request=BatchRequest,
        limit=MAX_BATCH_BODY,
        response=BatchResponse,
        example={"decisions": [_QUESTION]},
        answers={"decisions": [_ANSWER]},
    ),
    Route(
        method="POST",
        path="/v1/loops/{loop}/outcomes",
        name="reportOutcomes",
        tag="outcomes",
        summary="Report what happened after decisions",
        answer=_outcomes,
        role="report",
        request=OutcomeRequest | list[OutcomeRequest],
        response=Accepted,
        status=202,
        example={"event_id": _ID, "value": 1.0},
        answers={"accepted": 1},
    ),
    Route(
        method="POST",
        path="/v1/loops/{loop}/activate",
        name="activate",
        tag="outcomes",
        summary="Activate a deferred decision",
        answer=_activate,
        role="report",
        request=ActivateRequest,
        response=Accepted,
        status=202,
        example={"event_id": _ID},
        answers={"accepted": 1},
    ),
    Route(
        method="GET",
        path="/v1/decisions/{event_id}",
        name="explainDecision",
        tag="decisions",
        summary="Explain a decision and repeat its draw",
        answer=_explain,
        parameters=(Query(name="loop", text="Whose decision; that of the first loop that decided it if left out"),),
        role="explain",
        response=Explanation,
        errors=(410,),
        answers=_EXPLANATION,
    ),
)
