"""Bodies that come in pieces: whole or not at all, no more of them at a time than a worker can hold."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.operations.processes import free_port
from serving import routes
from serving.http.app import App
from serving.problems import ProblemError
from serving.routes import BodyUnfinished, read_body
from tests.serving.http.test_app import QUESTION, open_at
from tests.serving.http.test_door import HOST, opened

SCOPE: dict[str, Any] = {"headers": []}


class Pieces:
    """Gives a body in pieces, and then what `last` is; waits for ever where that is None."""

    def __init__(self, *pieces: bytes, last: dict[str, Any] | None = None) -> None:
        self._messages = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
        self._messages += [] if last is None else [last]
        self.given = asyncio.Event()

    async def __call__(self) -> dict[str, Any]:
        if self._messages:
            return self._messages.pop(0)
        self.given.set()
        await asyncio.Event().wait()
        raise AssertionError


END = {"type": "http.request", "body": b"", "more_body": False}
GONE = {"type": "http.disconnect"}


def test_pieces_are_put_together() -> None:
    pieces = [b"%d," % number for number in range(1_000)]
    assert asyncio.run(read_body(SCOPE, Pieces(*pieces, last=END))) == b"".join(pieces)


@pytest.mark.parametrize("pieces", [(), (b"",), (b"a=1", b"&b=2")])
def test_a_body_whose_connection_ends_before_it_does_is_none(pieces: tuple[bytes, ...]) -> None:
    with pytest.raises(ProblemError) as refused:
        asyncio.run(read_body(SCOPE, Pieces(*pieces, last=GONE)))
    assert (refused.value.status, refused.value.problem.field) == (400, "body")


def test_bodies_that_are_still_coming_are_bounded_together_and_forgotten_however_they_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(routes, "MOST_ARRIVING", 1_000)

    async def told(pieces: Pieces) -> type[BaseException] | None:
        try:
            await read_body(SCOPE, pieces)
        except BaseException as error:
            return type(error)
        return None

    async def run() -> None:
        slow = [Pieces(bytes(450)) for _ in range(2)]
        reading = [asyncio.create_task(told(each)) for each in slow]
        for each in slow:
            await each.given.wait()
        with pytest.raises(ProblemError) as refused:
            await read_body(SCOPE, Pieces(bytes(101), last=END))
        assert (refused.value.status, refused.value.headers) == (503, ((b"retry-after", b"1"),))
        assert await read_body(SCOPE, Pieces(bytes(99), last=END)) == bytes(99)
        assert len(await read_body(SCOPE, Pieces(last=END | {"body": bytes(5_000)}))) == 5_000  # it is there already
        for each in reading:
            each.cancel()
        assert await asyncio.gather(*reading) == [BodyUnfinished] * 2
        with pytest.raises(ProblemError):
            await read_body(SCOPE, Pieces(bytes(600), last=GONE))
        assert len(await read_body(SCOPE, Pieces(bytes(999), last=END))) == 999

    asyncio.run(run())


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    core = open_at(tmp_path)
    app = App(lambda: core)
    yield app
    app.close()


def test_a_question_that_could_be_read_before_its_end_is_not_decided_when_the_connection_ends(app: App) -> None:
    port = free_port()
    body = json.dumps(QUESTION | {"event_id": "half"}).encode()
    head = b"POST /v1/loops/news/decide HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % (len(body) + 10)

    def ask() -> None:
        with socket.create_connection((HOST, port), timeout=300) as connection:
            connection.sendall(head + body)

    async def run() -> None:
        async with opened(app, port) as door:
            await asyncio.to_thread(ask)
            while door.connections:
                await asyncio.sleep(0.001)

    asyncio.run(run())
    assert app.core.spool.appended == 0
    assert app.core.spool.find("decisions", b"half") == []


@pytest.mark.parametrize("pieces", [1, 40])
def test_fields_after_a_body_are_no_headers_and_are_not_kept(pieces: int) -> None:
    """A proxy takes keys and origins of the outside out of the head, not out of what comes after the body."""
    port, seen = free_port(), list[list[tuple[bytes, bytes]]]()
    head, trailer = b"host: x\r\ntransfer-encoding: chunked\r\n\r\n", b"authorization: Bearer k\r\n\r\n"
    request = b"POST / HTTP/1.1\r\n" + head + b"1\r\na\r\n0\r\n" + trailer

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert await read_body(scope, receive) == b"a"
        seen.append(scope["headers"])
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    def ask() -> None:
        with socket.create_connection((HOST, port), timeout=300) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for _ in range(2):  # the next request of the connection has its own headers again
                for at in range(0, len(request), len(request) // pieces):
                    connection.sendall(request[at : at + len(request) // pieces])
                answer = b""
                while not answer.endswith(b"ok"):
                    answer += connection.recv(1024)

    async def run() -> None:
        async with opened(app, port):
            await asyncio.to_thread(ask)

    asyncio.run(run())
    assert seen == [[(b"host", b"x"), (b"transfer-encoding", b"chunked")]] * 2
