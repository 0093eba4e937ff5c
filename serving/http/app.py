"""HTTP on the core: one small dispatcher, no framework between the socket and the decision."""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import unquote

import msgspec

from decision.errors import FieldError
from decision.guard.snapshot import weight_at
from serving import metrics
from serving.core import Core
from serving.http import openapi, personalizer
from serving.problems import ProblemError, of_field
from serving.wire import (
    MAX_BATCH,
    MAX_OUTCOMES,
    Accepted,
    ActivateRequest,
    BatchRequest,
    DecideRequest,
    DecideResponse,
    OutcomeRequest,
    Problem,
    decode,
)

MAX_BODY = 1 << 20
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_log = logging.getLogger("decision.http")
_encode = msgspec.json.encode
_decide_decoder = msgspec.json.Decoder(DecideRequest)
_batch_decoder = msgspec.json.Decoder(BatchRequest)
_outcome_decoder = msgspec.json.Decoder(OutcomeRequest | list[OutcomeRequest])
_activate_decoder = msgspec.json.Decoder(ActivateRequest)
_JSON = b"application/json"
_PROBLEM = b"application/problem+json"


class App:
    """The ASGI application of a core.

    Args:
        core: opened when the first request or the service's start needs it.
    """

    def __init__(self, core: Callable[[], Core]) -> None:
        self._open = core
        self._core: Core | None = None
        self._keys: list[bytes] = []
        self._panels: Callable[[Scope, Receive, Send], Awaitable[None]] | None = None

    @property
    def core(self) -> Core:
        """The core, opened now if it was not."""
        if self._core is None:
            self._core = self._open()
            self._keys = [key.strip().encode() for key in self._core.settings.api_keys.split(",") if key.strip()]
        return self._core

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return
        method, path = scope["method"], scope["path"]
        if path.startswith(("/fairness/", "/console")):
            await self._of_panels(scope, receive, send)
            return
        try:
            status, content, body = await self._answer(method, path, scope, receive)
            headers: tuple[tuple[bytes, bytes], ...] = ()
        except FieldError as error:
            problem = of_field(error)
            status, content, body, headers = problem.status, _PROBLEM, problem.body(), ()
        except ProblemError as error:
            status, content, body, headers = error.status, _PROBLEM, error.body(), error.headers
        except Exception:
            _log.exception("%s %s failed", method, path[:200])
            problem = ProblemError(500, "the service failed; nothing about the request is wrong")
            status, content, body, headers = 500, _PROBLEM, problem.body(), ()
        if status >= 400:
            metrics.refused(status)
        await send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [(b"content-type", content), (b"content-length", str(len(body)).encode()), *headers],
            }
        )
        await send({"type": "http.response.body", "body": body})

    async def _of_panels(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._panels is None:
            from serving.fairness.app import panels  # imports SQLAlchemy and Jinja: only panels need them

            self._panels = panels(self.core)
        await self._panels(scope, receive, send)

    async def _answer(self, method: str, path: str, scope: Scope, receive: Receive) -> tuple[int, bytes, bytes]:
        core = self.core
        parts = path.split("/")
        if parts[1:3] == ["v1", "loops"]:
            return await self._loops(core, method, parts, scope, receive)
        if path == "/livez":
            return 200, _JSON, b'{"alive":true}'
        if path == "/readyz":
            reason = core.ready()
            if reason is not None:
                raise ProblemError(503, reason, headers=((b"retry-after", b"1"),))
            return 200, _JSON, b'{"ready":true}'
        if path == "/metrics":
            return 200, metrics.CONTENT_TYPE, metrics.exposition(core)
        if path == "/openapi.json":
            return 200, _JSON, openapi.document()
        self._authorise(scope)
        if parts[1:3] == ["v1", "decisions"] and len(parts) == 4:
            _allow(method, "GET")
            return 200, _JSON, _encode(await asyncio.to_thread(core.explain, unquote(parts[3])))
        if parts[1] == "personalizer":
            body = await _body(scope, receive) if method == "POST" else b""
            status, answer = await personalizer.handle(core, method, parts[2:], _headers(scope), body)
            return status, _JSON, answer
        raise ProblemError(404, f"there is nothing at {path[:80]!r}")

    async def _loops(
        self, core: Core, method: str, parts: list[str], scope: Scope, receive: Receive
    ) -> tuple[int, bytes, bytes]:
        self._authorise(scope)
        if len(parts) == 3:
            _allow(method, "GET")
            return 200, _JSON, _encode({"loops": core.loops.names()})
        loop = unquote(parts[3])
        if len(parts) == 4:
            _allow(method, "GET")
            return 200, _JSON, _encode(await asyncio.to_thread(describe, core, loop))
        action = "/".join(parts[4:])
        if action not in ("decide", "decide/batch", "outcomes", "activate"):
            raise ProblemError(404, f"there is nothing at {action[:80]!r} of a loop")
        _allow(method, "POST")
        core.snapshot(loop)
        body = await _body(scope, receive)
        if action == "decide":
            return 200, _JSON, _encode(await core.decide(loop, decode(_decide_decoder, body)))
        if action == "outcomes":
            reports = decode(_outcome_decoder, body)
            reports = reports if isinstance(reports, list) else [reports]
            if not 1 <= len(reports) <= MAX_OUTCOMES:
                raise FieldError("outcomes", wanted=f"1 to {MAX_OUTCOMES} reports", got=len(reports))
            return 202, _JSON, _encode(Accepted(await core.report(loop, reports)))
        if action == "activate":
            asked = decode(_activate_decoder, body)
            report = OutcomeRequest(
                asked.event_id, 1.0, slot=asked.slot, name="activation", idempotency_key="activation"
            )
            return 202, _JSON, _encode(Accepted(await core.report(loop, [report])))
        questions = decode(_batch_decoder, body).decisions
        if not 1 <= len(questions) <= MAX_BATCH:
            raise FieldError("decisions", wanted=f"1 to {MAX_BATCH} decisions", got=len(questions))
        answers = await asyncio.gather(*(_one_of_many(core, loop, question) for question in questions))
        return 200, _JSON, _encode({"decisions": answers})

    def _authorise(self, scope: Scope) -> None:
        if not self._keys:
            return
        headers = _headers(scope)
        given = headers.get(b"ocp-apim-subscription-key", b"")
        bearer = headers.get(b"authorization", b"")
        if bearer[:7].lower() == b"bearer ":
            given = bearer[7:].strip()
        # every key is compared, so that the time does not tell which one came close
        if sum(hmac.compare_digest(given, key) for key in self._keys) == 0:
            raise ProblemError(401, "an API key is needed", headers=((b"www-authenticate", b"Bearer"),))


async def _one_of_many(core: Core, loop: str, question: DecideRequest) -> DecideResponse | Problem:
    try:
        return await core.decide(loop, question)
    except FieldError as error:
        return of_field(error).problem
    except ProblemError as error:
        return error.problem


def describe(core: Core, loop: str) -> dict[str, Any]:
    """Return a loop's settings, versions, guard state and counters; blocking."""
    snapshot = core.snapshot(loop)
    counts = core.count(loop)
    published = snapshot.guard_weight
    guard, weight, segments = snapshot.guard, 0.0, dict[str, float]()
    if guard is not None and published:
        segments = {value: weight_at(guard, core.clock(), value) for value in guard.weights}
        weight = max(weight_at(guard, core.clock()), *segments.values()) if segments else weight_at(guard, core.clock())
    return {
        "loop": loop,
        "settings": msgspec.to_builtins(snapshot.loop),
        "policy_version": snapshot.policy_version,
        "baseline_version": snapshot.baseline_version,
        "candidate_version": snapshot.candidate_version or None,
        "guard": {"weight": weight, "published_weight": published, "version": snapshot.guard_version}
        | ({"segments": segments} if segments else {}),
        "error": core.loops.error(loop),
        "process": {
            "decided": counts.decided,
            "repeated": counts.repeated,
            "outcomes": counts.outcomes,
            "fallbacks": counts.fallbacks,
            "spool_depth": core.spool.depth,
        },
        "counters": metrics.lake_counters(core, snapshot.loop),
    }


def _allow(method: str, wanted: str) -> None:
    if method != wanted:
        raise ProblemError(405, f"this path takes {wanted}", headers=((b"allow", wanted.encode()),))


def _headers(scope: Scope) -> dict[bytes, bytes]:
    return dict(scope["headers"])


async def _body(scope: Scope, receive: Receive) -> bytes:
    """Return the request's body, read no further than the limit."""
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and int(value) > MAX_BODY:
            raise _too_large()
    message = await receive()
    body = message.get("body", b"")
    while message.get("more_body"):
        message = await receive()
        body += message.get("body", b"")
        if len(body) > MAX_BODY:
            raise _too_large()
    if len(body) > MAX_BODY:
        raise _too_large()
    return body


def _too_large() -> ProblemError:
    return ProblemError(
        413, f"a request holds at most {MAX_BODY} bytes", field="body", wanted=f"at most {MAX_BODY} bytes", got="more"
    )
