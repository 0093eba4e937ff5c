"""The service's port: a uvicorn server of each worker, beside BentoML's own and on the same event loop.

BentoML's frame costs a request many times what the decision does, so decisions come in here. The workers share the port
(SO_REUSEPORT): the system spreads new connections over them. The application and its core are the worker's only ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import socket
from collections.abc import Awaitable, Callable, Iterator
from itertools import takewhile
from typing import Any, ClassVar

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from pipelines.operations.processes import cannot_listen
from serving import metrics
from serving.problems import PROBLEM, ProblemError, late, late_body, unavailable
from serving.routes import MAX_BATCH_BODY, Application, BodyUnfinished, Receive, Scope, Send

_log = logging.getLogger(__name__)
_BACKLOG = 2048
KEEP_ALIVE_S = 5
ANSWER_S, HEAD_S, READ_S = 30.0, 10.0, 30.0
MAX_HEAD = 64 << 10
"""Bytes of a request's line and headers."""
MAX_REST = 2 * MAX_BATCH_BODY
"""Bytes of a request that are thrown away after its answer, before its connection is closed."""
MOST_CONNECTIONS = 4096
"""Of a worker; who comes beyond them takes the place of whoever has sent no whole request for the longest time."""
_ANSWERED_S = 20
_UNSENT = 64 << 10
"""Bytes of answers that the system keeps for a connection whose client does not read, and as many for its own needs;
left to itself it takes up to 4 MB."""
_AT_ONCE = 64
_LAST = (b"connection", b"close")


class _Transport:
    """A transport whose first `close` leaves a client that still sends its request the time to read its answer.

    A socket that is closed with bytes unread resets its connection, and the client's system throws the answer away
    (RFC 9112, 9.6). The service says that it ends, throws away what comes, and is closed by the client or at its time.
    """

    def __init__(self, transport: asyncio.Transport, lingers: Callable[[], bool]) -> None:
        self._transport, self._lingers, self.ended = transport, lingers, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def is_closing(self) -> bool:
        return self.ended or self._transport.is_closing()

    def close(self) -> None:
        if self.is_closing() or not self._lingers():
            self._transport.close()
        else:
            self.ended = True
            self._transport.resume_reading()  # a body that nobody reads on may have paused it
            self._transport.write_eof()


class _Trailers(list[tuple[bytes, bytes]]):
    """Where fields go that come after a body: nowhere. They are no headers (RFC 9110, 6.5.1), and have no end."""

    def append(self, field: tuple[bytes, bytes], /) -> None:
        """Keep nothing."""


_TRAILERS = _Trailers()


class _Connection(HttpToolsProtocol):
    """A connection that knows how long it has been sending a request, and how much of its head.

    Each door has a class of its own with the two that follow.

    Attributes:
        asking: connections whose next request has not come whole, those that have had the longest time for it first.
        most: connections that the door takes.
    """

    asking: ClassVar[dict[_Connection, float]]
    most: ClassVar[int]
    own: _Transport
    head_since: float | None = None
    head_bytes = 0
    unread: tuple[int, float] = (0, 0.0)
    held: tuple[RequestResponseCycle, Any] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a head; where there are too many, the one that has waited longest goes."""
        self.own = _Transport(transport, self._lingers)
        super().connection_made(self.own)  # type: ignore[arg-type]
        self._begin_head()
        if len(self.connections) > self.most:
            oldest = next(iter(self.asking))
            if oldest is not self:  # else all others are being answered, and this one will be told so
                del self.asking[oldest]
                oldest.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        self.asking.pop(self, None)
        self.held = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what came; after the last answer, throw it away."""
        if self.own.ended:
            self._count(len(data), MAX_REST)
            return
        if self.head_since is None and (self.cycle is None or self.cycle.response_complete):
            self._begin_head()
        rest = self._is_rest()
        super().data_received(data)
        if self.head_since is not None and self._is_rest() == rest:
            self._count(len(data), MAX_REST if rest else MAX_HEAD)

    def on_headers_complete(self) -> None:
        """End to wait for a head; what comes of fields from now on is none of it."""
        self.head_since = None
        super().on_headers_complete()
        if self.cycle is not None and self.cycle.scope is self.scope:  # else a WebSocket, which is refused by its head
            self.headers = _TRAILERS

    def handle_websocket_upgrade(self) -> None:
        """Refuse a WebSocket at once; what else a client would rather speak is left out and its request answered."""
        problem = ProblemError(400, "WebSockets are not spoken here; ask without `Upgrade`")
        body = problem.body()
        head = b"HTTP/1.1 400 Bad Request\r\ncontent-type: %s\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
        self.transport.write(head % (PROBLEM, len(body)) + body)
        self.transport.close()
        metrics.refused(400)

    def _should_upgrade(self) -> bool:
        return self._get_upgrade() == b"websocket"

    def _unsupported_upgrade_warning(self) -> None:
        """Say nothing: clients offer HTTP/2 in this way, and go on without."""

    def on_message_complete(self) -> None:
        """End to wait for a request, or for the rest of one that was answered early: then the next may come."""
        super().on_message_complete()
        if self.cycle.response_complete:
            self.cycle.more_body = False
            self._begin_head()
        else:
            self.asking.pop(self, None)

    def on_response_complete(self) -> None:
        """Wait for the next request, where it is not there yet."""
        super().on_response_complete()
        if self.cycle.response_complete and not self.transport.is_closing():
            self._ask_again()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Begin to answer, but not before the answers of before are on their way: who reads none asks for no more."""
        if self.flow.write_paused:
            self.held = cycle, app
            self.flow.pause_reading()
        else:
            super()._start_asgi_task(cycle, app)

    def resume_writing(self) -> None:
        """Begin what was held."""
        super().resume_writing()
        if self.held is not None:
            held, self.held = self.held, None
            self._start_asgi_task(*held)

    def _is_rest(self) -> bool:
        """Return whether what comes is the rest of a request that has its answer; whoever sends it reads that after."""
        return self.cycle is not None and self.cycle.response_complete and self.cycle.more_body

    def _lingers(self) -> bool:
        """Return whether the rest of a request is still to come, and begin to wait for it."""
        if not self._is_rest():
            return False
        self._begin_head()
        return True

    def _count(self, size: int, most: int) -> None:
        self.head_bytes += size
        if self.head_bytes > most:
            self.transport.abort()

    def _begin_head(self) -> None:
        self.head_since, self.head_bytes = self._ask_again(), 0

    def _ask_again(self) -> float:
        now = self.loop.time()
        self.asking.pop(self, None)
        self.asking[self] = now
        return now

    def is_unread(self, now: float, read_s: float) -> bool:
        """Return whether nobody has read on for so long, of an answer that is too long for the system to take it."""
        left, (before, since) = self.transport.get_write_buffer_size(), self.unread
        if not left or left < before or not before:
            since = now
        self.unread = left, since
        return now - since > read_s


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to BentoML's server: it ends the worker, and the worker closes the door."""
        yield


class Door:
    """One worker's server on the service's port.

    Args:
        app: what answers.
        host: address to listen on.
        port: port to listen on, shared with the other workers.
        answer_s: seconds after which a request that has no answer yet gets 504, or 408 where its body is still to come.
        head_s: seconds after which a connection that has not sent a whole head is closed.
        read_s: seconds after which a connection is closed that reads nothing of its answer.
        drain: waits for as long as it still answers when it closes, saying that each connection ends; None: not at all.
    """

    def __init__(
        self,
        app: Application,
        *,
        host: str,
        port: int,
        answer_s: float = ANSWER_S,
        head_s: float = HEAD_S,
        read_s: float = READ_S,
        drain: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        self._app = app
        self._host, self._port = host, port
        self._answer_s, self._head_s, self._read_s, self._drain = answer_s, head_s, read_s, drain
        self._asking: dict[_Connection, float] = {}
        self._most = MOST_CONNECTIONS
        self._closing = False
        self._waiting: dict[asyncio.Task[Any], float] = {}  # requests without an answer, the oldest first
        self._late: set[asyncio.Task[Any]] = set()
        self._server: _Server | None = None
        self._serving: asyncio.Task[None] | None = None

    @property
    def servers(self) -> list[asyncio.Server]:
        """What accepts connections; empty before the door is open."""
        return [] if self._server is None else self._server.servers

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return 0 if self._server is None else len(self._server.server_state.connections)

    async def open(self) -> None:
        """Listen, and answer from now on.

        Raises:
            FieldError: the port is taken; names the setting.
        """
        listener = listen(self._host, self._port)
        most = self._most = _most_connections()
        config = uvicorn.Config(
            self._answer,
            interface="asgi3",
            http=type("_DoorConnection", (_Connection,), {"asking": self._asking, "most": most}),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,  # the console reads the one that it needs
            backlog=_BACKLOG,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=_ANSWERED_S,
            callback_notify=self.end_late,
            timeout_notify=0,
        )
        self._server = _Server(config)
        self._serving = asyncio.create_task(self._server.serve(sockets=[listener]), name="door")
        self._serving.add_done_callback(self._ended)
        while not self._server.started and not self._serving.done():
            await asyncio.sleep(0)
        if self._serving.done():
            await self._serving
        _log.info("open host=%s port=%d", self._host, self._port)

    async def close(self) -> None:
        """Say that nothing more is wanted, then accept nothing more; return when all under way is answered.

        Does nothing when closed.
        """
        if self._server is not None and self._serving is not None:
            if not self._closing:
                self._closing = True
                if self._drain is not None:
                    await self._drain()
            self._server.should_exit = True
            with contextlib.suppress(Exception):  # told of when it ended
                await self._serving

    def broken(self) -> str | None:
        """Return why nobody is answered here, or not for long, although the door was opened, or None."""
        if self._closing:
            return "the service ends"
        if self._serving is None or self._server is None:
            return None
        if self._serving.done() or not all(server.is_serving() for server in self.servers):
            return f"nothing answers on port {self._port}"
        return None

    def _ended(self, serving: asyncio.Task[None]) -> None:
        if not self._closing:
            error = None if serving.cancelled() else serving.exception()
            _log.critical("the server on port %d ended", self._port, exc_info=error)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        task, waiting = asyncio.current_task(), self._waiting
        if task is None:
            raise RuntimeError("the server answers outside a task")
        if self.connections - len(self._asking) > self._most:  # so many are answered already
            await _send(send, unavailable("too many connections are open"))
            return
        waiting[task] = asyncio.get_running_loop().time()

        def begun(message: Any) -> Any:
            waiting.pop(task, None)
            if self._closing and message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], _LAST]}
            return send(message)

        try:
            await self._app(scope, receive, begun)
        except asyncio.CancelledError as error:
            if task not in self._late:
                raise
            self._late.discard(task)
            task.uncancel()
            unfinished = isinstance(error, BodyUnfinished)
            await _send(send, late_body(self._answer_s) if unfinished else late(self._answer_s))
        finally:
            waiting.pop(task, None)

    async def end_late(self) -> None:
        """End requests that have waited too long, and connections that send or read too slowly; once a second.

        Others are answered in between: thousands may be late at once.
        """
        now = asyncio.get_running_loop().time()
        slow = takewhile(lambda known: now - known[1] > self._head_s, list(self._asking.items()))
        for number, (connection, since) in enumerate(slow):
            await _give_way(number)
            if connection.head_since is not None and self._asking.get(connection) == since:
                connection.transport.close()
        open_now: set[Any] = set() if self._server is None else self._server.server_state.connections
        for number, connection in enumerate(list(open_now)):
            await _give_way(number)
            if (
                isinstance(connection, _Connection)
                and connection in open_now
                and connection.is_unread(now, self._read_s)
            ):
                connection.transport.abort()
        late = takewhile(lambda known: now - known[1] >= self._answer_s, list(self._waiting.items()))
        for number, (task, _) in enumerate(late):
            await _give_way(number)
            if self._waiting.pop(task, None) is not None:
                self._late.add(task)
                task.cancel()


async def _give_way(number: int) -> None:
    """Let the event loop go on before every so many-th of what is done in one go."""
    if number % _AT_ONCE == _AT_ONCE - 1:
        await asyncio.sleep(0)


async def _send(send: Send, problem: ProblemError) -> None:
    """Answer with a problem document, and end the connection."""
    body = problem.body()
    headers = [(b"content-type", PROBLEM), (b"content-length", b"%d" % len(body)), _LAST, *problem.headers]
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _most_connections() -> int:
    """Return how many connections a worker takes: half of the files that it may have open, the rest is for its own."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(MOST_CONNECTIONS, soft // 2)


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on a port which other workers of the service may listen on too.

    Raises:
        FieldError: the port is taken.
    """
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _UNSENT)  # its connections have it from here
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise cannot_listen("port", host, port, error) from error
    return listener
