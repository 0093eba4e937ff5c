"""An answer that ends its connection reaches whoever is still sending the request."""

from __future__ import annotations

import asyncio
import select

from pipelines.operations.processes import free_port
from tests.serving.http.test_door import half, opened, reading


def test_who_goes_on_sending_after_the_last_answer_reads_it_all_the_same() -> None:
    port, piece = free_port(), bytes(1 << 16)

    def ask() -> bytes:
        """Send a piece at a time, long after the answer is there; a reset would throw it away."""
        with half(port, b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % (1 << 19)) as connection:
            assert select.select([connection], [], [], 300)[0]
            for _ in range(7):
                connection.sendall(piece)
            answer = b""
            while got := connection.recv(1024):
                answer += got
            return answer

    async def run() -> list[bytes]:
        async with opened(reading, port, answer_s=0.05, head_s=300.0) as door:
            answers = await asyncio.gather(*(asyncio.to_thread(ask) for _ in range(8)))
            while door.connections:  # they end with their clients, not at the time for a head
                await asyncio.sleep(0.01)
            return answers

    assert [answer[:12] for answer in asyncio.run(run())] == [b"HTTP/1.1 408"] * 8


def test_who_reads_the_last_answer_and_never_ends_is_closed() -> None:
    port = free_port()

    async def run() -> bytes:
        async with opened(reading, port, answer_s=0.05, head_s=3_600.0) as door:
            kept = await asyncio.to_thread(half, port, b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n")
            answer = await asyncio.to_thread(kept.recv, 1024)
            door._head_s = 0.0  # an hour later
            while door.connections:
                await asyncio.sleep(0.01)
            kept.close()
            return answer

    assert asyncio.run(run()).startswith(b"HTTP/1.1 408")
