"""The application of the demonstration: what it asks again, and what it counts as failed."""

from __future__ import annotations

import asyncio
import io

import aiohttp
import pytest

from pipelines.demo.traffic import Application, Habits
from simulators.environments.classification import classification_world

OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"


async def posted(drops: int) -> tuple[Application, bytes | None]:
    """Post twice to a server that answers the first request, and closes its connection on the next `drops` ones."""
    left, answered = [drops], [0]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            length = next(
                int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-l")
            )
            await reader.readexactly(length)
            if answered[0] and left[0]:
                left[0] -= 1
                break
            answered[0] += 1
            writer.write(OK)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    world = classification_world("digits", seed=1)
    application = Application(world, f"http://127.0.0.1:{port}", seed=1, journal=io.BytesIO(), habits=Habits())
    async with aiohttp.ClientSession() as application._session:
        assert await application._post("/decide", b"{}", "e1") == b"{}"
        last = await application._post("/decide", b"{}", "e2")
    server.close()
    return application, last


@pytest.mark.parametrize(("drops", "reconnected", "failed"), [(0, 0, 0), (1, 1, 0), (2, 1, 1)])
def test_a_connection_closed_while_it_was_kept_is_asked_again_and_no_failure(
    drops: int, reconnected: int, failed: int
) -> None:
    application, last = asyncio.run(posted(drops))
    assert last == b"{}"
    assert (application.status.reconnected, application.status.failed) == (reconnected, failed)


def test_a_server_that_is_not_there_is_a_failure() -> None:
    async def ask() -> Application:
        world = classification_world("digits", seed=1)
        application = Application(world, "http://127.0.0.1:1", seed=1, journal=io.BytesIO(), habits=Habits())
        async with aiohttp.ClientSession() as application._session:
            assert await application._post("/decide", b"{}", "e1") is None
        return application

    application = asyncio.run(ask())
    assert application.status.reconnected == 0
    assert application.status.failed > 1
