"""A load generator: keep-alive connections on raw sockets under one epoll, one request outstanding on each.

It does little per answer, so that one core of it keeps up with a server that does nothing on another core. Closed loop:
every connection asks again at once. Paced (`rate`): requests fall due at even intervals and their latency counts from
then, whether a connection was free or not, so a server that stalls cannot hide it.

Run as a process of its own, ``python -m tests.bench.load PORT PATH SECONDS CONNECTIONS [RATE]``, with one JSON body per
line on standard input; prints one JSON line.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import sys
import time
from collections import deque

_END = b"\r\n\r\n"
_LENGTH = b"content-length: "
_STRIDE = 7  # connections begin apart and step alike, so that they do not send the same body at the same time


class _Connection:
    """One connection and what of an answer has arrived."""

    __slots__ = ("begun", "held", "next", "socket")

    def __init__(self, port: int, first: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=300)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.next = first
        self.begun = 0.0
        self.held = b""


def _whole(answer: bytes) -> bool:
    """Return whether `answer` has its head and its whole body."""
    head = answer.find(_END)
    if head < 0:
        return False
    at = answer.find(_LENGTH, 0, head)
    if at < 0:
        at = answer.lower().find(_LENGTH, 0, head)
    stop = answer.find(b"\r", at)
    return len(answer) >= head + 4 + int(answer[at + 16 : stop])


def run(
    port: int, requests: list[bytes], *, seconds: float, connections: int, rate: float | None = None
) -> dict[str, float]:
    """Load a server and return what it answered.

    Args:
        port: where it listens on 127.0.0.1.
        requests: whole requests, sent in turn.
        seconds: how long to ask.
        connections: connections that are kept alive.
        rate: requests a second that fall due at even intervals; None: every connection asks again at once.

    Returns:
        Requests, requests a second, their p50 and p99 in milliseconds, answers other than 200, and the share of a core
        that this process used.
    """
    poll = select.epoll()
    clients: dict[int, _Connection] = {}
    for index in range(connections):
        client = _Connection(port, index)
        clients[client.socket.fileno()] = client
        poll.register(client.socket, select.EPOLLIN)
    numbers = list(clients)
    now = time.perf_counter
    times: list[float] = []
    bad, total = 0, len(requests)
    free = deque(clients.values())
    begun, used = now(), time.process_time()
    until = begun + seconds
    due, step = begun, 0.0 if rate is None else 1.0 / rate

    def ask(client: _Connection, at: float) -> None:
        client.begun = at
        client.socket.sendall(requests[client.next % total])
        client.next += _STRIDE

    if rate is None:
        for client in free:
            ask(client, now())
        free.clear()
    waiting = connections - len(free)
    while waiting or now() < until:
        if rate is None:
            wait = 5.0
        else:
            while free and due <= now() and due < until:
                ask(free.popleft(), due)
                due += step
                waiting += 1
            wait = max(0.0, due - now()) if free and due < until else (5.0 if waiting else 0.0)
        if rate is None:
            ready = [number for number, _ in poll.poll(wait, connections)]
        else:  # epoll waits in whole milliseconds
            ready = select.select(numbers, (), (), wait)[0]
        for number in ready:
            client = clients[number]
            answer = client.socket.recv(1 << 18)
            if not answer:
                raise ConnectionError(f"the server closed a connection after {len(times)} answers")
            if client.held:
                answer = client.held + answer
            if not _whole(answer):
                client.held = answer
                continue
            client.held = b""
            at = now()
            times.append(at - client.begun)
            bad += not answer.startswith(b"HTTP/1.1 200")
            if rate is None and at < until:
                ask(client, at)
            else:
                waiting -= 1
                free.append(client)
    took, used = now() - begun, time.process_time() - used
    for client in clients.values():
        client.socket.close()
    times.sort()
    return {
        "requests": len(times),
        "requests_per_second": len(times) / took,
        "p50_ms": 1e3 * times[len(times) // 2],
        "p99_ms": 1e3 * times[int(len(times) * 0.99)],
        "errors": bad,
        "generator_share": used / took,
    }


def posts(path: str, bodies: list[bytes]) -> list[bytes]:
    """Return whole requests that post JSON `bodies` to `path`."""
    head = b"POST %s HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s"
    return [head % (path.encode(), len(body), body) for body in bodies]


if __name__ == "__main__":
    lines = [line for line in sys.stdin.buffer.read().split(b"\n") if line]
    port, path, seconds, connections, *paced = sys.argv[1:]
    with contextlib.suppress(OSError):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    print(
        json.dumps(
            run(
                int(port),
                posts(path, lines),
                seconds=float(seconds),
                connections=int(connections),
                rate=float(paced[0]) if paced else None,
            )
        )
    )
