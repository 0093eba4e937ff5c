"""What the endpoints and pages of the panels share: the store, who is asking, and errors as problem documents."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import wraps
from typing import Any, TypeVar

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from decision.errors import DecisionError, FieldError
from pipelines.fairness.people import Person, Role, by_key
from pipelines.fairness.store import Governance
from pipelines.fairness.verdicts import ForbiddenError, NoTaskError
from serving.core import Core
from serving.problems import ProblemError, of_field
from serving.wire import decode

MAX_BODY = 1 << 16
T = TypeVar("T")
Handler = Callable[[Request], Awaitable[Response]]

_log = logging.getLogger("decision.fairness")


class Desk:
    """The panels' side of one process.

    Args:
        core: of the service; its settings say where the store is.
    """

    def __init__(self, core: Core) -> None:
        self.core = core
        self._store: Governance | None = None

    @property
    def store(self) -> Governance:
        """The store, opened on first use; blocking."""
        if self._store is None:
            self._store = Governance.at(self.core.settings)
        return self._store

    def now(self) -> datetime:
        """Return the time of the service's clock."""
        return datetime.fromtimestamp(self.core.clock(), UTC)

    def known_loop(self, loop: str) -> str:
        """Return `loop`.

        Raises:
            ProblemError: 404, there is no such loop.
        """
        self.core.snapshot(loop)
        return loop

    async def who(self, request: Request, *roles: Role) -> Person:
        """Return who is asking, by the key in the ``Authorization: Bearer`` header.

        Raises:
            ProblemError: 401 without a key that opens, 403 for one that does not open this.
        """
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        person = None
        if scheme.lower() == "bearer" and 20 <= len(key.strip()) <= 100:
            person = await run_in_threadpool(by_key, self.store, key.strip())
        if person is None:
            raise ProblemError(401, "a panel key is needed", headers=((b"www-authenticate", b"Bearer"),))
        return allowed(person, *roles)


def allowed(person: Person, *roles: Role) -> Person:
    """Return `person`, who holds one of `roles`.

    Raises:
        ProblemError: 403, they hold none.
    """
    if roles and not person.may(*roles):
        raise ProblemError(403, f"this needs the role {' or '.join(roles)}")
    return person


def own_loop(person: Person, loop: str) -> None:
    """Refuse an owner who asks about another loop; administrators and adjudicators may ask about any.

    Raises:
        ProblemError: 403.
    """
    if not person.may("administrator", "adjudicator") and loop not in person.owns:
        raise ProblemError(403, "this is another owner's loop")


async def body(request: Request) -> bytes:
    """Return the request's body, read no further than the limit.

    Raises:
        ProblemError: 413, it is larger.
    """
    data = b""
    async for part in request.stream():
        data += part
        if len(data) > MAX_BODY:
            raise ProblemError(
                413, f"a request holds at most {MAX_BODY} bytes", field="body", wanted=f"at most {MAX_BODY}", got="more"
            )
    return data


async def read(request: Request, decoder: msgspec.json.Decoder[T]) -> T:
    """Return the decoded body; see `body` and `serving.wire.decode` for errors."""
    return decode(decoder, await body(request))


def problem_of(error: Exception, path: str) -> ProblemError:
    """Return the problem document of an error."""
    if isinstance(error, ProblemError):
        return error
    if isinstance(error, FieldError):
        return of_field(error)
    if isinstance(error, ForbiddenError):
        return ProblemError(403, str(error))
    if isinstance(error, NoTaskError):
        return ProblemError(404, str(error), field="task_id")
    if isinstance(error, DecisionError):
        return ProblemError(422, str(error))
    _log.error("%s failed", path[:200], exc_info=error)
    return ProblemError(500, "the service failed; nothing about the request is wrong")


def answered(handler: Handler) -> Handler:
    """Return `handler` with its errors as problem documents."""

    @wraps(handler)
    async def run(request: Request) -> Response:
        try:
            return await handler(request)
        except Exception as error:
            problem = problem_of(error, request.url.path)
            headers = {name.decode(): value.decode() for name, value in problem.headers}
            return Response(problem.body(), problem.status, headers, "application/problem+json")

    return run


def json(data: Any, status: int = 200) -> Response:
    """Return `data` as JSON that nobody caches."""
    return Response(msgspec.json.encode(data), status, {"cache-control": "no-store"}, "application/json")


def query(request: Request, *names: str, required: tuple[str, ...] = ()) -> dict[str, str]:
    """Return the query's values.

    Raises:
        FieldError: one is missing or unknown.
    """
    for name in request.query_params:
        if name not in names:
            raise FieldError(name, wanted=f"one of {', '.join(names) or 'none'}", got="an unknown parameter")
    for name in required:
        if not request.query_params.get(name):
            raise FieldError(name, wanted="a value", got=None)
    return dict(request.query_params)
