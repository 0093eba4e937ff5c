"""What the endpoints and pages of the panels share: the store, and who is asking."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from decision.errors import FieldError
from pipelines.fairness.people import Person, Role, by_key
from pipelines.fairness.store import Governance
from serving.core import Core
from serving.problems import ProblemError
from serving.routes import Application, Call, read_body
from serving.wire import decode

MAX_BODY = 1 << 16
T = TypeVar("T")
Handler = Callable[[Request], Awaitable[Response]]


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

    def close(self) -> None:
        """Close the store; does nothing when it was closed before."""
        store, self._store = self._store, None
        if store is not None:
            store.close()

    def now(self) -> datetime:
        """Return the time of the service's clock."""
        return datetime.fromtimestamp(self.core.clock(), UTC)

    def known_loop(self, loop: str) -> str:
        """Return `loop`.

        Raises:
            UnknownLoopError: there is no such loop.
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
    return await read_body(request.scope, request.receive, MAX_BODY)


async def read(request: Request, decoder: msgspec.json.Decoder[T]) -> T:
    """Return the decoded body; raises what `body` and `serving.wire.decode` raise."""
    return decode(decoder, await body(request))


def answering(handler: Handler) -> Callable[[Call], Awaitable[Application]]:
    """Return a handler of Starlette's requests as the answer of a route."""

    async def answer(call: Call) -> Application:
        return await handler(Request({**call.scope, "path_params": call.path}, call.receive))

    return answer


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
            raise FieldError.unknown(name, names, noun="parameter")
    for name in required:
        if not request.query_params.get(name):
            raise FieldError.missing(name)
    return dict(request.query_params)
