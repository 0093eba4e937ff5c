"""The table of routes: each row says what a path takes and answers, and drives both dispatch and the OpenAPI document.

A path is split where it has slashes and each part decoded once after that, so that an id may hold any character.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol
from urllib.parse import quote, unquote_to_bytes

import msgspec

from decision.errors import FieldError
from pipelines.access.callers import ANYBODY, Caller
from serving.core import Core
from serving.errors import UnknownLoopError
from serving.problems import PROBLEM, ProblemError, unavailable
from serving.telemetry.traces import Trace
from serving.wire import Problem

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

MAX_BODY = 1 << 20
MAX_BATCH_BODY = 16 << 20
MOST_ARRIVING = 256 << 20
"""Bytes of bodies of which more is to come, of all requests of a worker."""
_TRACEPARENT = re.compile(rb"[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}.*")
JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
Method = Literal["GET", "POST", "PUT", "DELETE"]
Role = Literal["anyone", "decide", "report", "explain", "read", "operate", "admin", "panel member", "visitor"]
"""Who may ask: anyone; who holds a key with that role, where keys are asked for; a member of the panels with a key of
their own; somebody with a browser, who is asked to sign in."""
OF_KEYS = frozenset(["decide", "report", "explain", "read", "operate", "admin"])
"""Roles that keys have."""


@dataclass(slots=True)
class Call:
    """One request.

    Attributes:
        core: what answers.
        scope: as ASGI has it.
        receive: gives the body.
        path: the path's parameters, decoded.
        body: read when the route takes a body as bytes.
        caller: who asks.
        session: of the console's, where its cookie stood for a key; "" else.
        asks: whether the service asks for keys.
        trace: of the request; None where it is not traced.
    """

    core: Core
    scope: Scope
    receive: Receive
    path: dict[str, str]
    body: bytes = b""
    caller: Caller = ANYBODY
    session: str = ""
    asks: bool = False
    trace: Trace | None = None

    @property
    def headers(self) -> dict[bytes, bytes]:
        """The request's headers, names in lower case."""
        return dict(self.scope["headers"])

    def told(self) -> dict[str, str]:
        """Return what a log line says of the request: its loop, its event and its trace, where they are known."""
        known = {name: self.path[name] for name in ("loop", "event_id") if name in self.path}
        trace_id = self.trace.trace_id if self.trace is not None else _traced_by(self.scope["headers"])
        return known | {"trace_id": trace_id} if trace_id else known

    def loops(self) -> list[str]:
        """Return the names of the loops that are there for the caller."""
        return [name for name in self.core.loops.names() if self._sees(name)]

    def hosts(self) -> set[str]:
        """Return the names of hosts under which Personalizer's paths lead to a loop."""
        found = map(self.core.loops.get, self.core.loops.names())
        return {host for snapshot in found if snapshot is not None for host in snapshot.loop.hosts}

    def check_loop(self, name: str) -> None:
        """Check that a loop is there for the caller; whoever may not see one is told what is told of one that is not.

        Raises:
            UnknownLoopError: it is not.
        """
        if not self.caller.sees_all() and not self._sees(name):
            raise UnknownLoopError(name)

    def _sees(self, name: str) -> bool:
        found = self.core.loops.get(name)
        return self.caller.sees_all() or (found is not None and self.caller.sees(found.loop))


def _traced_by(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Return the trace that the caller names in ``traceparent`` (W3C Trace Context, 2021); "" for none."""
    for name, value in headers:
        if name == b"traceparent":
            found = _TRACEPARENT.fullmatch(value)
            return found[1].decode() if found is not None else ""
    return ""


class Application(Protocol):
    """What sends its answer itself, as Starlette's responses do."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer."""
        ...


Answer = Callable[[Call], Awaitable["bytes | Application"]]
Told = Callable[[Call, ProblemError], "Application | None"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A parameter of the query or a header.

    Attributes:
        name: its name.
        text: what it is.
        where: ``query`` or ``header``.
        required: whether it must be given.
    """

    name: str
    text: str
    where: Literal["query", "header"] = "query"
    required: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusals:
    """How errors are told of.

    Attributes:
        shape: of the document.
        content: its media type.
        text: what it is.
        invalid: status of a request whose fields do not fit.
    """

    shape: type[msgspec.Struct]
    content: str
    text: str
    invalid: int


PROBLEMS = Refusals(
    shape=Problem,
    content=PROBLEM.decode(),
    text="A problem document (RFC 9457) that names the field at fault",
    invalid=422,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One row of the table.

    Attributes:
        method: what it takes; ``HEAD`` is answered as ``GET`` is.
        path: with parameters in braces, as ``/v1/loops/{loop}/decide``.
        name: the operation's id, unique.
        tag: its group.
        summary: what it does, in one line.
        answer: does it; returns the body, or what sends the whole answer itself.
        role: who may ask.
        request: shape of the body; None without one.
        response: shape of the answer; None for an empty one.
        status: of an answer that is no error.
        also: further statuses of its answers: those without a body, redirects, pages that tell of an error.
        errors: statuses of errors, besides those that every route of its kind has.
        example: a body that is accepted.
        answers: the answer to it, or to a call without one.
        parameters: of the query, and headers.
        refusals: how its errors are told of.
        also_at: further paths that answer the same; the OpenAPI document names them in words.
        content: media type of the answer.
        form: whether the body is a form and no JSON.
        reads_body: whether the body is read before `answer` is called.
        limit: bytes that the body may have.
        page: tells of an error as a page, None to who wants no page; who asks for a page may show the console's cookie
            in place of a key.
    """

    method: Method
    path: str
    name: str
    tag: str
    summary: str
    answer: Answer
    role: Role
    request: Any = None
    response: Any = None
    status: int = 200
    also: tuple[int, ...] = ()
    errors: tuple[int, ...] = ()
    example: Any = None
    answers: Any = None
    parameters: tuple[Query, ...] = ()
    refusals: Refusals = PROBLEMS
    also_at: tuple[str, ...] = ()
    content: str = JSON
    form: bool = False
    reads_body: bool = True
    limit: int = MAX_BODY
    page: Told | None = None


@dataclass(slots=True)
class _Node:
    fixed: dict[bytes, _Node] = field(default_factory=dict)
    any: _Node | None = None
    name: str = ""
    routes: dict[str, Route] = field(default_factory=dict)


class Table:
    """Finds the route of a request."""

    def __init__(self, routes: Iterable[Route] = ()) -> None:
        self._root = _Node()
        self.add(routes)

    def add(self, routes: Iterable[Route]) -> None:
        """Add rows.

        Raises:
            ValueError: two rows have the same method and path.
        """
        for route in routes:
            for path in (route.path, *route.also_at):
                self._add(route, path)

    def _add(self, route: Route, path: str) -> None:
        node = self._root
        for part in path.split("/")[1:]:
            if part.startswith("{"):
                node.any = node.any or _Node()
                node = node.any
                node.name = part[1:-1]
            else:
                node = node.fixed.setdefault(quote(part).encode(), _Node())
        if route.method in node.routes:
            raise ValueError(f"{route.method} {path} stands twice")
        node.routes[route.method] = route

    def find(self, scope: Scope) -> tuple[Route, dict[str, str]]:
        """Return the route of a request and its path's parameters. HEAD is answered as GET is.

        Raises:
            ProblemError: 404, there is nothing at this path; 405, it does not take this method.
            FieldError: the path is not UTF-8.
        """
        raw: bytes = scope.get("raw_path") or quote(scope["path"]).encode()
        node, found = self._root, dict[str, str]()
        for part in raw.split(b"/")[1:]:
            below = node.fixed.get(part)
            if below is None and b"%" in part:
                below = node.fixed.get(unquote_to_bytes(part))
            if below is None:
                if node.any is None or not part:
                    raise ProblemError(404, f"there is nothing at {scope['path'][:80]!r}")
                below = node.any
                try:
                    found[below.name] = (unquote_to_bytes(part) if b"%" in part else part).decode()
                except UnicodeDecodeError as error:
                    raise FieldError(below.name, wanted="UTF-8", got=part) from error
            node = below
        method: str = "GET" if scope["method"] == "HEAD" else scope["method"]
        route = node.routes.get(method)
        if route is None:
            if not node.routes:
                raise ProblemError(404, f"there is nothing at {scope['path'][:80]!r}")
            takes = ", ".join(node.routes)
            raise ProblemError(405, f"this path takes {takes}", headers=((b"allow", takes.encode()),))
        return route, found


class BodyUnfinished(asyncio.CancelledError):
    """The request was ended while its body was still to come."""


class _Arriving:
    """Counts the bytes of bodies of which more is to come; one event loop reads all bodies of a worker."""

    size = 0


async def read_body(scope: Scope, receive: Receive, limit: int = MAX_BODY) -> bytes:
    """Return the request's body, read no further than `limit` bytes.

    Raises:
        ProblemError: 413, it is larger; 400, the connection ended before it; 503, too much of others is still coming.
        BodyUnfinished: the request was ended from outside before its body had come.
    """
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and int(value) > limit:
            raise _too_large(limit)
    try:
        message = await receive()
        if message.get("more_body"):
            return await _read_on(message, receive, limit)
    except asyncio.CancelledError as error:
        raise BodyUnfinished(*error.args) from error
    body = _of(message)
    if len(body) > limit:
        raise _too_large(limit)
    return body


async def _read_on(message: MutableMapping[str, Any], receive: Receive, limit: int) -> bytes:
    body, counted = bytearray(_of(message)), 0
    try:
        while message.get("more_body"):
            if len(body) > limit:
                raise _too_large(limit)
            _Arriving.size += len(body) - counted
            counted = len(body)
            if _Arriving.size > MOST_ARRIVING:
                raise unavailable("too many large requests are arriving")
            message = await receive()
            body += _of(message)
    finally:
        _Arriving.size -= counted
    if len(body) > limit:
        raise _too_large(limit)
    return bytes(body)


def _of(message: MutableMapping[str, Any]) -> bytes:
    if message["type"] == "http.disconnect":  # what came is no body, even where it can be read as one
        raise ProblemError(400, "the connection ended before the body", field="body")
    return message.get("body", b"")


def _too_large(limit: int) -> ProblemError:
    told = f"a request holds at most {limit} bytes"
    return ProblemError(413, told, field="body", wanted=f"at most {limit} bytes", got="more")
