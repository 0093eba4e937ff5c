"""The service's port: shared by workers, refused when somebody else has it, closed only when everybody is answered."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from decision.errors import FieldError
from pipelines.operations.processes import check_port, free_port
from pipelines.settings import load_settings
from serving import metrics
from serving.http.app import App
from serving.http.door import MAX_HEAD, MAX_REST, Door
from serving.routes import read_body
from serving.start import open_core

HOST = "127.0.0.1"


def answering(body: bytes, before: Callable[[], Awaitable[Any]] | None = None) -> Any:
    """Return an application that answers with `body` once `before` is done."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if before is not None:
            await before()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})

    return app


def get(port: int, path: str = "/") -> tuple[int, bytes]:
    status, _, body = answered(port, path)
    return status, body


def answered(port: int, path: str = "/") -> tuple[int, http.client.HTTPMessage, bytes]:
    connection = http.client.HTTPConnection(HOST, port, timeout=300)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    finally:
        connection.close()


@asynccontextmanager
async def opened(app: Any, port: int, **more: Any) -> AsyncIterator[Door]:
    door = Door(app, port=port, **{"host": HOST, **more})
    await door.open()
    try:
        yield door
    finally:
        await door.close()


def test_doors_of_workers_share_the_port_and_every_connection_reaches_one_of_them() -> None:
    port, seen = free_port(), set[bytes]()

    async def run() -> None:
        async with opened(answering(b"first"), port), opened(answering(b"second"), port):
            while len(seen) < 2:
                seen.add((await asyncio.to_thread(get, port))[1])

    asyncio.run(run())
    assert seen == {b"first", b"second"}


@pytest.mark.parametrize("shares", [False, True], ids=["alone", "among workers"])
def test_a_port_that_somebody_listens_on_is_refused_by_the_name_of_its_setting(shares: bool) -> None:
    port = free_port()
    with socket.socket() as other:
        if shares:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind((HOST, port))
        other.listen()
        with pytest.raises(
            FieldError, match=f"port: must be free, {port} is taken on {HOST} .DECISION_PORT"
        ) as refused:
            check_port("port", HOST, port)
        assert refused.value.field == "port"
        if not shares:
            with pytest.raises(FieldError, match="DECISION_PORT"):
                asyncio.run(Door(answering(b""), host=HOST, port=port).open())


def test_a_port_is_free_again_as_soon_as_its_service_has_ended() -> None:
    port = free_port()

    async def run() -> None:
        async with opened(answering(b"x"), port):
            await asyncio.to_thread(get, port)

    for _ in range(2):
        asyncio.run(run())
        check_port("port", HOST, port)


def test_a_door_that_closes_answers_who_came_before_and_takes_nobody_after() -> None:
    port = free_port()

    async def run() -> bytes:
        asked, may = asyncio.Event(), asyncio.Event()

        async def before() -> None:
            asked.set()
            await may.wait()

        async with opened(answering(b"answered", before), port) as door:
            under_way = asyncio.create_task(asyncio.to_thread(get, port))
            await asked.wait()
            closing = asyncio.create_task(door.close())
            while any(server.is_serving() for server in door.servers):
                await asyncio.sleep(0)
            with pytest.raises(ConnectionRefusedError):
                await asyncio.to_thread(get, port)
            assert not under_way.done()
            may.set()
            await closing
            return (await under_way)[1]

    assert asyncio.run(run()) == b"answered"


def test_a_door_that_drains_says_so_and_answers_on_by_connections_that_end() -> None:
    port = free_port()

    async def run() -> None:
        enough = asyncio.Event()
        async with opened(answering(b"answered"), port, drain=enough.wait) as door:
            assert door.broken() is None
            closing = asyncio.create_task(door.close())
            while door.broken() is None:
                await asyncio.sleep(0)
            assert door.broken() == "the service ends"

            def last() -> str | None:
                connection = http.client.HTTPConnection(HOST, port, timeout=300)
                connection.request("GET", "/")
                response = connection.getresponse()
                assert response.read() == b"answered"
                connection.close()
                return response.getheader("connection")

            assert await asyncio.to_thread(last) == "close"
            enough.set()
            await closing
            with pytest.raises(ConnectionRefusedError):
                await asyncio.to_thread(get, port)

    asyncio.run(run())


def test_a_request_without_an_answer_in_time_is_ended_with_504_and_others_go_on() -> None:
    port = free_port()
    ended = asyncio.Event()

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def run() -> tuple[int, http.client.HTTPMessage, bytes]:
        async with opened(answering(b"", forever), port, answer_s=0.01):
            answer = await asyncio.to_thread(answered, port)
            await ended.wait()
            return answer

    status, headers, body = asyncio.run(run())
    assert (status, headers["retry-after"]) == (504, "1")
    assert json.loads(body)["type"] == "urn:decision:problem:out-of-time"


def test_an_answer_that_has_begun_may_take_its_time() -> None:
    port = free_port()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
        await door.end_late()
        await door.end_late()
        await send({"type": "http.response.body", "body": b"late"})

    door = Door(slow, host=HOST, port=port, answer_s=0.0)

    async def run() -> tuple[int, bytes]:
        await door.open()
        answer = await asyncio.to_thread(get, port)
        await door.close()
        return answer

    assert asyncio.run(run()) == (200, b"late")


def test_a_worker_whose_door_has_died_is_not_ready(tmp_path: Path) -> None:
    settings, beside = load_settings({}, home=str(tmp_path), port=free_port()), free_port()
    path = settings.loop_path("news")
    path.parent.mkdir(parents=True)
    path.write_text("")
    app = App(lambda: open_core(settings))

    async def run() -> None:
        door = Door(app, host=HOST, port=settings.port)
        app.watched.append(door.broken)
        assert app.ready() is None
        await door.open()
        assert (await asyncio.to_thread(get, settings.port, "/readyz"))[0] == 200
        for server in door.servers:
            server.close()
        assert app.ready() == f"nothing answers on port {settings.port}"
        async with opened(app, beside):  # as BentoML's own port does
            assert (await asyncio.to_thread(get, beside, "/readyz"))[0] == 503
        await door.close()
        assert app.ready() == "the service ends"

    try:
        asyncio.run(run())
    finally:
        app.close()


def test_every_request_is_counted_by_its_route_and_status(tmp_path: Path) -> None:
    settings = load_settings({}, home=str(tmp_path), port=free_port())
    app = App(lambda: open_core(settings))

    def counted(route: str, status: int) -> float:
        name = f'decision_request_seconds_count{{route="{route}",status="{status}"}} '
        lines = [line for line in metrics.exposition().decode().splitlines() if line.startswith(name)]
        return float(lines[0].rpartition(" ")[2]) if lines else 0.0

    before = [counted("isAlive", 200), counted("isReady", 503), counted("none", 404)]

    async def run() -> None:
        async with opened(app, settings.port):
            for path in ("/livez", "/livez", "/readyz", "/nothing"):
                await asyncio.to_thread(get, settings.port, path)

    try:
        asyncio.run(run())
    finally:
        app.close()
    after = [counted("isAlive", 200), counted("isReady", 503), counted("none", 404)]
    assert [a - b for a, b in zip(after, before, strict=True)] == [2, 1, 1]


def half(port: int, sent: bytes) -> socket.socket:
    connection = socket.create_connection((HOST, port), timeout=300)
    connection.sendall(sent)
    return connection


def is_closed(connection: socket.socket) -> bool:
    """Wait until the other side closes, or says something."""
    with connection:
        try:
            return connection.recv(1024) == b""
        except ConnectionResetError:
            return True


SLOW = [b"", b"GET /liv", b"GET / HTTP/1.1\r\nhost: x\r\nx-slow: ", b"POST / HTTP/1.1\r\ncontent-length: 9\r\n"]


@pytest.mark.parametrize("sent", SLOW, ids=range(len(SLOW)))
def test_connections_that_send_no_whole_head_are_closed_and_others_are_answered(sent: bytes) -> None:
    port = free_port()

    async def run() -> list[bool]:
        async with opened(answering(b"yes"), port, head_s=3_600.0) as door:
            slow = [await asyncio.to_thread(half, port, sent) for _ in range(40)]
            assert await asyncio.to_thread(get, port) == (200, b"yes")
            door._head_s = 0.0  # an hour later
            return [await asyncio.to_thread(is_closed, one) for one in slow]

    assert asyncio.run(run()) == [True] * 40


def test_a_second_head_on_a_connection_has_as_long_as_the_first() -> None:
    port = free_port()

    def ask() -> tuple[socket.socket, bytes]:
        connection = half(port, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        answer = b""
        while not answer.endswith(b"yes"):  # it may come in pieces
            answer += connection.recv(1024)
        connection.sendall(b"GET / HT")
        return connection, answer

    async def run() -> tuple[bytes, bool]:
        async with opened(answering(b"yes"), port, head_s=3_600.0) as door:
            connection, answer = await asyncio.to_thread(ask)
            while [one.head_bytes for one in door._asking] != [len(b"GET / HT")]:
                await asyncio.sleep(0.001)
            door._head_s = 0.0  # an hour later
            return answer, await asyncio.to_thread(is_closed, connection)

    answer, closed = asyncio.run(run())
    assert answer.startswith(b"HTTP/1.1 200")
    assert closed


def test_a_head_without_end_is_cut_off() -> None:
    port = free_port()

    def send() -> int:
        connection, sent = half(port, b"GET / HTTP/1.1\r\n"), 0
        with connection:
            try:
                while sent < 64 * MAX_HEAD:
                    line = b"x-%d: %s\r\n" % (sent, b"y" * 1000)
                    connection.sendall(line)
                    sent += len(line)
            except OSError:
                pass
        return sent

    async def run() -> int:
        async with opened(answering(b"yes"), port, head_s=300.0):
            return await asyncio.to_thread(send)

    assert asyncio.run(run()) < 64 * MAX_HEAD


def drained(connection: socket.socket) -> int:
    """Read until the other side ends the connection, and return how much came."""
    got = 0
    try:
        while some := connection.recv(8 << 20):
            got += len(some)
    except ConnectionResetError:
        pass
    return got


IDLE = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
UNFINISHED = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n1234"


async def reading(scope: Any, receive: Any, send: Any) -> None:
    """Answer once the body is there."""
    await answering(await read_body(scope, receive) or b"yes")(scope, receive, send)


@pytest.mark.parametrize("sent", [*SLOW, IDLE, UNFINISHED])
def test_who_comes_to_a_full_door_takes_the_place_of_the_slowest(sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.http.door.MOST_CONNECTIONS", 8)
    port = free_port()

    async def run() -> None:
        async with opened(reading, port, head_s=300.0) as door:
            slow: list[socket.socket] = []
            for _ in range(12):
                slow.append(await asyncio.to_thread(half, port, sent))
                if sent == IDLE:
                    assert (await asyncio.to_thread(slow[-1].recv, 1024)).startswith(b"HTTP/1.1 200")
            while door.connections > 8:
                await asyncio.sleep(0.001)
            assert [await asyncio.to_thread(get, port) for _ in range(3)] == [(200, b"yes")] * 3
            while door.connections > 8:
                await asyncio.sleep(0.001)
            for one in slow[:4]:
                await asyncio.to_thread(drained, one)
            for one in slow:
                one.close()

    asyncio.run(run())


def test_connections_beyond_what_a_worker_answers_at_a_time_are_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.http.door.MOST_CONNECTIONS", 4)
    port = free_port()

    async def run() -> None:
        asked, may = 0, asyncio.Event()

        async def before() -> None:
            nonlocal asked
            asked += 1
            await may.wait()

        def get_headers() -> tuple[int, str | None]:
            connection = http.client.HTTPConnection(HOST, port, timeout=300)
            connection.request("GET", "/")
            response = connection.getresponse()
            connection.close()
            return response.status, response.getheader("retry-after")

        async with opened(answering(b"yes", before), port):
            answered = [asyncio.create_task(asyncio.to_thread(get, port)) for _ in range(4)]
            while asked < 4:
                await asyncio.sleep(0.001)
            assert await asyncio.to_thread(get_headers) == (503, "1")
            may.set()
            assert await asyncio.gather(*answered) == [(200, b"yes")] * 4
            assert (await asyncio.to_thread(get_headers))[0] == 200

    asyncio.run(run())


@pytest.mark.parametrize("sent", [b"", b"1234"])
def test_a_body_that_does_not_come_is_answered_with_408_and_the_connection_ends(sent: bytes) -> None:
    port = free_port()

    def ask() -> bytes:
        with half(port, b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n" + sent) as connection:
            answer = b""
            while got := connection.recv(1024):
                answer += got
            return answer

    async def run() -> bytes:
        async with opened(reading, port, answer_s=0.05):
            return await asyncio.to_thread(ask)

    answer = asyncio.run(run())
    assert answer.startswith(b"HTTP/1.1 408")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["field"] == "body"


def test_an_answer_that_nobody_reads_is_given_up_and_one_that_is_read_slowly_is_not() -> None:
    port, size = free_port(), 64 << 20

    def some(connection: socket.socket, most: int = 1 << 16) -> int:
        got = len(connection.recv(most))
        assert got > 0, "the answer was given up"
        return got

    async def run() -> None:
        async with opened(answering(bytes(size)), port, read_s=1.0) as door:
            idle, slow = [await asyncio.to_thread(half, port, IDLE) for _ in range(2)]
            got = await asyncio.to_thread(some, slow)
            while door.connections > 1:  # the door looks once a second, and each time some was read
                got += await asyncio.to_thread(some, slow)
                await door.end_late()
                await asyncio.sleep(0.01)
            while got < size:
                got += await asyncio.to_thread(some, slow, 1 << 20)
            assert await asyncio.to_thread(drained, idle) < size
            idle.close()
            slow.close()

    asyncio.run(run())


def test_who_is_answered_before_all_is_sent_may_send_the_rest_and_ask_again() -> None:
    port, size = free_port(), 8 << 20
    request = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % size + bytes(size)

    def ask() -> list[bytes]:
        with socket.create_connection((HOST, port), timeout=300) as connection:
            answers: list[bytes] = []
            for _ in range(3):
                connection.sendall(request)
                answer = b""
                while not answer.endswith(b"refused"):
                    answer += connection.recv(1024)
                answers.append(answer[:15])
            return answers

    async def run() -> list[bytes]:
        async with opened(answering(b"refused"), port):
            return await asyncio.to_thread(ask)

    assert asyncio.run(run()) == [b"HTTP/1.1 200 OK"] * 3


def test_the_rest_of_a_request_that_has_its_answer_is_bounded() -> None:
    port = free_port()

    def ask() -> int:
        sent = 0
        with half(port, b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % (1 << 40)) as connection:
            try:
                while sent < 4 * MAX_REST:
                    connection.sendall(bytes(1 << 20))
                    sent += 1 << 20
            except OSError:
                pass
        return sent

    async def run() -> int:
        async with opened(answering(b"refused"), port):
            return await asyncio.to_thread(ask)

    assert asyncio.run(run()) < 4 * MAX_REST
