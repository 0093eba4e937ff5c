"""Slow clients of every kind are ended, each as it deserves, and others are answered meanwhile."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.operations.processes import free_port
from serving.http import app as app_module
from serving.http.app import App
from serving.http.door import listen
from serving.http.operations import routes
from tests.serving.http.test_app import open_at
from tests.serving.http.test_door import HOST, answering, get, half, opened
from tests.soak.slow_clients import KINDS, turn

CLIENTS = 60
TOLD = {"no body": "408", "slow body": "408", "kept, idle": "200"}


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    core = open_at(tmp_path)
    app = App(lambda: core)
    yield app
    app.close()


@pytest.mark.parametrize("kind", KINDS)
def test_slow_clients_are_all_ended_and_others_are_answered(app: App, kind: str) -> None:
    if kind == "unread":  # is sent the description, which takes seconds to make
        answer: Any = next(route for route in app._routes if route.name == "readOpenApi").answer
        asyncio.run(answer(None))
    port = free_port()
    answers: list[int] = []

    def during() -> None:
        answers.extend(get(port, "/livez")[0] for _ in range(20))

    async def run() -> dict[str, int]:
        async with opened(app, port, head_s=1.0, answer_s=1.0, read_s=1.0) as door:
            ended = await turn(port, kind, CLIENTS, during)
            while door.connections:
                await asyncio.sleep(0.01)
            return ended

    assert asyncio.run(run()) == {TOLD.get(kind, "ended"): CLIENTS}
    assert answers == [200] * 20


def unread(port: int, sent: bytes) -> socket.socket:
    """Ask, and read nothing; the system takes little in the meantime."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    connection.settimeout(300)
    connection.connect((HOST, port))
    connection.sendall(sent)
    return connection


def whole(connection: socket.socket, size: int) -> bytes:
    found = bytearray()
    while len(found) < size:
        found += connection.recv(1 << 20)
    return bytes(found)


GET = b"GET /%d HTTP/1.1\r\nhost: x\r\n\r\n"
POST = b"POST /%d HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc"


@pytest.mark.parametrize("request_", [GET, POST])
@pytest.mark.parametrize("together", [True, False])
def test_requests_are_begun_once_the_answer_before_is_on_its_way(request_: bytes, together: bool) -> None:
    port, body, begun = free_port(), bytes(1 << 20), list[str]()
    inner = answering(body)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        begun.append(scope["path"])
        while (await receive()).get("more_body"):
            pass
        await inner(scope, receive, send)

    async def run() -> None:
        async with opened(app, port):
            asked = [request_ % number for number in range(6)]
            client = await asyncio.to_thread(unread, port, b"".join(asked) if together else asked[0])
            for one in [] if together else asked[1:]:
                await asyncio.to_thread(get, port)
                client.sendall(one)
            for _ in range(20):
                assert (await asyncio.to_thread(get, port))[0] == 200
            assert [path for path in begun if path != "/"] == ["/0"]
            head = b"HTTP/1.1 200 OK\r\n"
            found = await asyncio.to_thread(whole, client, 6 * len(body))
            while found.count(head) < 6 or len(found.rpartition(b"\r\n\r\n")[2]) < len(body):
                found += await asyncio.to_thread(client.recv, 1 << 20)
            assert [path for path in begun if path != "/"] == [f"/{number}" for number in range(6)]
            assert found.count(head) == 6
            client.close()

    asyncio.run(run())


def test_who_leaves_with_requests_that_were_not_begun_leaves_nothing() -> None:
    port, begun = free_port(), list[str]()
    inner = answering(bytes(1 << 20))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        begun.append(scope["path"])
        await inner(scope, receive, send)

    async def run() -> None:
        async with opened(app, port) as door:
            client = await asyncio.to_thread(unread, port, GET % 0 + GET % 1)
            while "/0" not in begun:
                await asyncio.sleep(0.01)
            client.close()
            while door.connections:
                await asyncio.sleep(0.01)
            assert await asyncio.to_thread(get, port) == (200, bytes(1 << 20))
            assert begun == ["/0", "/"]

    asyncio.run(run())


def test_the_system_keeps_little_of_what_a_client_does_not_read() -> None:
    with listen(HOST, free_port()) as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) <= 128 << 10


def test_the_event_loop_goes_on_while_many_are_ended_at_once() -> None:
    port, turns = free_port(), 0

    async def run() -> None:
        nonlocal turns
        loop = asyncio.get_running_loop()

        def turn_on() -> None:
            nonlocal turns
            turns += 1
            loop.call_soon(turn_on)

        async with opened(answering(b"yes"), port, head_s=3_600.0) as door:
            slow = [await asyncio.to_thread(half, port, b"GET / HT") for _ in range(200)]
            while door.connections < len(slow):
                await asyncio.sleep(0.01)
            door._head_s = 0.0
            turn_on()
            before = turns
            await door.end_late()
            between = turns - before
            while door.connections:
                await asyncio.sleep(0)
            for one in slow:
                one.close()
            assert between >= len(slow) // 64

    asyncio.run(run())


def test_the_description_is_made_once_however_many_ask_at_first() -> None:
    made = list[int]()
    broken = True

    def document() -> bytes:
        made.append(1)
        if broken:
            raise OSError("no room")
        return b"{}"

    answer: Any = next(route for route in routes(document, lambda: None) if route.name == "readOpenApi").answer

    async def run() -> None:
        nonlocal broken
        failed = await asyncio.gather(*(answer(None) for _ in range(20)), return_exceptions=True)
        assert {str(error) for error in failed} == {"no room"}
        broken = False
        assert await asyncio.gather(*(answer(None) for _ in range(20))) == [b"{}"] * 20
        assert await answer(None) == b"{}"

    asyncio.run(run())
    assert len(made) == 2


def test_the_description_comes_from_another_process_that_counts_nothing_and_is_the_same(
    app: App, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    here = app.document()
    run = tmp_path / "run"
    run.mkdir()
    for name in ("SERVING_METRICS", "PROMETHEUS_MULTIPROC_DIR"):
        monkeypatch.setenv(name, str(run))
    monkeypatch.setattr(app, "document", lambda: b"made here")
    monkeypatch.setattr(app_module, "_DESCRIBED_S", 600.0)  # what a busy machine takes is not what is claimed
    described = app.describe()
    assert [vars(record).get("fields") for record in caplog.records] == []
    assert described == here
    assert list(run.iterdir()) == []


def test_why_another_process_could_not_describe_the_api_is_logged(
    app: App, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(app_module, "__name__", "serving.http.nowhere")
    assert app.describe() == app.document()
    assert [vars(record)["fields"]["because"] for record in caplog.records] == [
        f"{app_module.sys.executable}: No module named serving.http.nowhere"
    ]


def test_the_description_is_made_in_the_service_where_no_process_can_be_had(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app_module.sys, "executable", "/nowhere/python")
    assert app.describe() == app.document()
