"""HTTP on the core: one small dispatcher, no framework between the socket and the decision."""

from __future__ import annotations

import hmac
import logging
import threading
import time
from collections.abc import Callable, MutableMapping
from typing import Any

from serving import metrics
from serving.core import Core
from serving.http import openapi, operations, personalizer, v1
from serving.http.reach import check_page, check_reach
from serving.problems import PROBLEM, ProblemError, failed, problem_of
from serving.routes import Application, Call, Receive, Route, Scope, Send, Table, read_body

_log = logging.getLogger(__name__)
_PANELS = ("/fairness", "/console")
_NO_ROUTE = "none"
_NO_ANSWER = 504  # a request that is ended from outside, before it has one


class App:
    """The ASGI application of a core.

    Args:
        core: opened when the first request or the service's start needs it.

    Attributes:
        watched: further reasons, beside the core's, why no decision can be taken now; each returns one or None.
    """

    def __init__(self, core: Callable[[], Core]) -> None:
        self._open = core
        self._core: Core | None = None
        self._keys: list[bytes] = []
        self.watched: list[Callable[[], str | None]] = []
        self._routes = [*v1.ROUTES, *personalizer.ROUTES, *operations.routes(self.document, self.ready)]
        self._table = Table(self._routes)
        self._close_panels: Callable[[], None] | None = None
        self._opening = threading.Lock()
        self._document = b""

    @property
    def core(self) -> Core:
        """The core, opened now if it was not."""
        if self._core is None:
            self._core = self._open()
            self._keys = self._core.settings.keys
        return self._core

    def close(self) -> None:
        """Write what waits and close everything; does nothing when it was closed before."""
        if self._close_panels is not None:
            self._close_panels()
        if self._core is not None:
            self._core.close()

    def ready(self) -> str | None:
        """Return why no decision can be taken now, or None."""
        return self.core.ready() or next((reason for watch in self.watched if (reason := watch()) is not None), None)

    def document(self) -> bytes:
        """Return the OpenAPI document; blocking, seconds at the first call."""
        if not self._document:
            self._open_panels()
            self._document = openapi.document(self._routes)
        return self._document

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the server's start and end."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send if scope["method"] != "HEAD" else _without_body(send))

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun, name, status = time.perf_counter(), _NO_ROUTE, _NO_ANSWER
        try:
            content, headers = b"application/json", ()
            try:
                core = self.core
                if not self._keys:
                    check_reach(scope)
                route, path = self._find(scope)
                name = route.name
                body = await self._answer(route, Call(core, scope, receive, path))
                if not isinstance(body, bytes):
                    status = await _sent_by(body, scope, receive, send)
                    return
                status, content = route.status, route.content.encode()
            except Exception as error:
                problem = problem_of(error)
                if problem is None:
                    _log.exception("%s %s failed", scope["method"], scope["path"][:200])
                    problem = failed()
                status, content, body, headers = problem.status, PROBLEM, problem.body(), problem.headers
                metrics.refused(status)
            sent = (
                [*headers]
                if status == 204
                else [(b"content-type", content), (b"content-length", b"%d" % len(body)), *headers]
            )
            await send({"type": "http.response.start", "status": status, "headers": sent})
            await send({"type": "http.response.body", "body": body})
        finally:
            metrics.answered(name, status, time.perf_counter() - begun)

    def _find(self, scope: Scope) -> tuple[Route, dict[str, str]]:
        if self._close_panels is None and scope["path"].startswith(_PANELS):
            self._open_panels()
        return self._table.find(scope)

    def _open_panels(self) -> None:
        with self._opening:
            if self._close_panels is None:
                from serving.fairness.app import panels  # imports SQLAlchemy and Jinja: only panels need them

                routes, close = panels(self.core)
                self._routes.extend(routes)
                self._table.add(routes)
                self._close_panels = close

    async def _answer(self, route: Route, call: Call) -> bytes | Application:
        if not self._keys and route.method == "POST" and route.role != "panel member":
            check_page(call.scope, signs_in=route.role == "visitor")
        if route.role == "application":
            self._authorise(call)
        if route.request is not None and route.reads_body:
            call.body = await read_body(call.scope, call.receive, route.limit)
        return await route.answer(call)

    def _authorise(self, call: Call) -> None:
        if not self._keys:
            return
        headers = call.headers
        given = headers.get(b"ocp-apim-subscription-key", b"")
        bearer = headers.get(b"authorization", b"")
        if bearer[:7].lower() == b"bearer ":
            given = bearer[7:].strip()
        # every key is compared, so that the time does not tell which one came close
        if sum(hmac.compare_digest(given, key) for key in self._keys) == 0:
            raise ProblemError(401, "an API key is needed", headers=((b"www-authenticate", b"Bearer"),))

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            event = (await receive())["type"]
            if event == "lifespan.startup":
                try:
                    _ = self.core
                except Exception as error:
                    _log.exception("the service cannot start")
                    await send({"type": "lifespan.startup.failed", "message": str(error)})
                    return
                await send({"type": "lifespan.startup.complete"})
            elif event == "lifespan.shutdown":
                self.close()
                await send({"type": "lifespan.shutdown.complete"})
                return


def _without_body(send: Send) -> Send:
    async def head(message: MutableMapping[str, Any]) -> None:
        await send(message if message["type"] != "http.response.body" else {**message, "body": b""})

    return head


async def _sent_by(body: Application, scope: Scope, receive: Receive, send: Send) -> int:
    """Let `body` send the answer and return its status."""
    status = _NO_ANSWER

    async def watched(message: MutableMapping[str, Any]) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
        await send(message)

    await body(scope, receive, watched)
    return status
