"""HTTP on the core: one small dispatcher, no framework between the socket and the decision."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, MutableMapping
from typing import Any

from pipelines.logs import ABOUT
from pipelines.operations.processes import let_others_first
from serving import metrics
from serving.core import Core
from serving.http import openapi, operations, personalizer, v1
from serving.http.access import Access
from serving.http.reach import check_name, check_origin, check_page, check_reach, session_in
from serving.problems import PROBLEM, ProblemError, failed, problem_of, unavailable
from serving.routes import OF_KEYS, Application, BodyUnfinished, Call, Receive, Route, Scope, Send, Table, read_body
from serving.telemetry.traces import CURRENT, Trace, Traces, now_ns

_DESCRIBED_S, _NICE = 25.0, 5
_log = logging.getLogger(__name__)
_PAGES = ("/fairness", "/console")
_OPENED_S = 20.0
"""How long a request waits for the pages to be opened, in seconds: less than until a request counts as late."""
_TRACED = ("decide", "report")
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
        self._access: Access | None = None
        self.watched: list[Callable[[], str | None]] = []
        self._routes = [*v1.ROUTES, *personalizer.ROUTES, *operations.routes(self.describe, self.ready)]
        self._table = Table(self._routes)
        self._close_pages: Callable[[], None] | None = None
        self._opening = threading.Lock()
        self._opened: asyncio.Future[None] | None = None

    @property
    def core(self) -> Core:
        """The core, opened now if it was not."""
        if self._core is None:
            core = self._open()
            self._access = Access(core.settings, core.clock)
            core.resources.callback(self._access.close)
            self._access.start()
            self._core = core
        return self._core

    def close(self) -> None:
        """Write what waits and close everything; does nothing when it was closed before."""
        with self._opening:
            if self._close_pages is not None:
                self._close_pages()
        if self._core is not None:
            self._core.close()

    def ready(self) -> str | None:
        """Return why no decision can be taken now, or None."""
        return self.core.ready() or next((reason for watch in self.watched if (reason := watch()) is not None), None)

    def document(self) -> bytes:
        """Return the OpenAPI document, made here; blocking for seconds."""
        self._open_pages()
        return openapi.document(self._routes)

    def describe(self) -> bytes:
        """Return the OpenAPI document; blocking for seconds; another process makes it, if it can."""
        try:
            return _described()
        except (OSError, subprocess.SubprocessError) as error:
            told = getattr(error, "stderr", None) or b""  # what it said before it ended; its last line is the error
            because = b"".join(told.splitlines()[-1:]).decode(errors="replace")
            _log.warning("the description is made here", extra={"fields": {"error": error, "because": because}})
            return self.document()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the server's start and end; refuse a WebSocket."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send if scope["method"] != "HEAD" else _without_body(send))
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close"})  # before it is accepted: the server answers 403

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun, name, status = time.perf_counter(), _NO_ROUTE, _NO_ANSWER
        route: Route | None = None
        call: Call | None = None
        try:
            content, headers = b"application/json", ()
            try:
                core = self.core
                asks = self._access is None or self._access.asks
                if not asks:
                    check_reach(scope)
                if self._close_pages is None and scope["path"].startswith(_PAGES):
                    await self._wait_for_pages()
                route, path = self._table.find(scope)
                name, call = route.name, Call(core, scope, receive, path, asks=asks)
                ABOUT.set(call.told)
                body = await self._answer(route, call, asks=asks)
                if not isinstance(body, bytes):
                    status = await _sent_by(body, scope, receive, send)
                    return
                status, content = route.status, route.content.encode()
            except Exception as error:
                problem = problem_of(error)
                if problem is None:
                    _log.exception("%s %s failed", scope["method"], scope["path"][:200])
                    problem = failed()
                if route is not None and call is not None and route.page is not None:
                    page = route.page(call, problem)
                    if page is not None:
                        metrics.refused(problem.status)
                        status = await _sent_by(page, scope, receive, send)
                        return
                if personalizer.owns(scope["path"]):
                    status, content, body = personalizer.told(problem, name)
                else:
                    status, content, body = problem.status, PROBLEM, problem.body()
                headers = problem.headers
                metrics.refused(status)
            sent = (
                [*headers]
                if status == 204
                else [(b"content-type", content), (b"content-length", b"%d" % len(body)), *headers]
            )
            await send({"type": "http.response.start", "status": status, "headers": sent})
            await send({"type": "http.response.body", "body": body})
        except BodyUnfinished:
            status = 408
            raise
        finally:
            metrics.answered(name, status, time.perf_counter() - begun)
            if call is not None and call.trace is not None:
                call.trace.end(status)

    async def _wait_for_pages(self) -> None:
        """Have the pages opened by a thread, with decisions answered meanwhile.

        Raises:
            ProblemError: 503, it takes long.
        """
        opened = self._opened
        if opened is None or opened.done():
            opened = self._opened = asyncio.ensure_future(asyncio.to_thread(self._open_pages))
        await asyncio.wait({opened}, timeout=_OPENED_S)
        if not opened.done():
            raise unavailable("the pages are being opened")
        opened.result()

    def _open_pages(self) -> None:
        with self._opening:
            if self._close_pages is None:
                from serving.console.app import console  # these import SQLAlchemy and Jinja: only pages need them
                from serving.fairness.app import panels

                core = self.core
                assert self._access is not None  # noqa: S101 - opened with the core
                operators = console(core, self._access)
                routes, close_panels = panels(core, operators)
                routes += operators.routes()

                def close() -> None:
                    operators.close()
                    close_panels()

                self._routes.extend(routes)
                self._table.add(routes)
                self._close_pages = close

    async def _answer(self, route: Route, call: Call, *, asks: bool) -> bytes | Application:
        traces = call.core.traces
        begun_ns = 0 if traces is None else now_ns()
        if not asks and route.method != "GET" and route.role != "panel member":
            check_page(call.scope, signs_in=route.role == "visitor")
        elif not asks and route.role in OF_KEYS:
            check_name(call.scope, call.hosts)
        if asks and route.role in OF_KEYS:
            await self._admit(route, call)
        if traces is not None:  # a caller's flag has a trace made, so only who may ask gets one
            call.trace = _begun(traces, route, call.scope, begun_ns)
        if route.request is not None and route.reads_body:
            call.body = await read_body(call.scope, call.receive, route.limit)
        return await route.answer(call)

    async def _admit(self, route: Route, call: Call) -> None:
        """Check that the caller may use the route: its key holds, the loop is there for it, it has the role.

        Raises:
            ProblemError: 401, 403, 503.
            UnknownLoopError: the loop is not there for the caller, whatever its roles.
            TooManyError: it asks too often.
        """
        if self._access is None:
            raise unavailable("the keys are not known yet")
        call.session = "" if route.page is None else session_in(call.headers)
        if call.session:
            if route.method != "GET":
                check_origin(call.scope)
            call.caller = await asyncio.to_thread(self._access.of_session, call.session)
        else:
            call.caller = self._access.of(call.headers)
        caller = call.caller
        loop = call.path.get("loop")
        if loop is not None:
            call.check_loop(loop)
        if not caller.holds(route.role):
            raise ProblemError(403, f"the {caller.shows} has no role {route.role!r}", field="role", wanted=route.role)
        caller.admit()

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


def _begun(traces: Traces, route: Route, scope: Scope, begun_ns: int) -> Trace | None:
    """Begin the trace of a request that decides or reports, and have what it calls know it; None without one."""
    trace = traces.begin(route.method, route.path, scope["headers"], begun_ns) if route.role in _TRACED else None
    CURRENT.set(trace)
    return trace


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


def _described() -> bytes:
    """Return the OpenAPI document from a process of its own.

    To make it takes two seconds of a core. In a thread it would take the interpreter from the decisions for as long.
    """
    command = (sys.executable, "-P", "-m", __name__)
    paths = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}  # a bento is not installed
    with subprocess.Popen(  # noqa: S603 - our own module
        command, env=metrics.environ_apart() | paths, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        let_others_first(process.pid, steps=_NICE)
        try:
            written, told = process.communicate(timeout=_DESCRIBED_S)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, stderr=told)
    return written


def _describe() -> None:
    """Write the OpenAPI document to standard output, of an empty installation: routes are the same in all."""
    from pipelines.settings import load_settings
    from serving.start import open_core

    with tempfile.TemporaryDirectory() as folder:
        app = App(lambda: open_core(load_settings({}, home=folder)))
        sys.stdout.buffer.write(app.document())
        app.close()


if __name__ == "__main__":
    _describe()
