"""Thousands of slow clients, one kind after the other, while others go on deciding: what it costs, and how it ends.

``python -m tests.soak.slow_clients [--clients N] [--rate R] [--seconds S]``. Each kind has a share of the clients, all
of whom are there at once: half-sent heads, heads that come a byte at a time, bodies that do, posts without a body,
connections kept for nothing, and answers that nobody reads. The load is a steady one on kept connections. Its tail is
taken alone, beside the same clients at a server that does nothing (what they cost a machine), and beside them at the
service; the ratio is that of the last two. Each is the median of four. Services have a core, clients and load the
others, where there are two. Ends with an error where a client is still there at the end, or a decision failed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil

from pipelines.operations.init import init_loop
from pipelines.operations.processes import free_port, process, serve_command, wait_until_ready
from pipelines.settings import load_settings

LOOP = "news"
DECIDE = f"/v1/loops/{LOOP}/decide"
QUESTION = b'{"context":{"hour":9},"actions":[{"id":"a"},{"id":"b"}]}'
POST = b"POST %s HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 500000\r\n\r\n"
TRICKLE_S = 1.0
AT_ONCE = 200
_ASKED = 8
"""Answers of a client that reads none: more than the system keeps for it."""
_RECEIVES = 4_096
_WINDOWS = 4


def _kinds() -> dict[str, tuple[bytes, bytes]]:
    """Return what each kind sends at once, and then a byte at a time."""
    post = POST % DECIDE.encode()
    large = b"GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n"
    return {
        "nothing": (b"", b""),
        "half a head": (b"GET /livez HTTP/1.1\r\nhost: x\r\nx-slow: ", b""),
        "slow head": (b"GET /livez HTTP/1.1\r\nhost: x\r\nx-slow: ", b"y"),
        "no body": (post, b""),
        "slow body": (post + QUESTION[:-1], b" "),
        "kept, idle": (b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n", b""),
        "unread": (large * _ASKED, b""),
    }


KINDS = _kinds()


async def turn(
    port: int, kind: str, clients: int, during: Callable[[], Any] | None = None, *, leave: bool = False
) -> Counter[str]:
    """Be so many slow clients of a kind; return what each was told last before its connection was ended.

    Args:
        port: the service's.
        kind: one of `KINDS`.
        clients: how many.
        during: called once all are there, in a thread; they stay until it has returned.
        leave: whether they go by themselves then.
    """
    ended: Counter[str] = Counter()
    there = asyncio.Semaphore(AT_ONCE)
    begun = [asyncio.Event() for _ in range(clients)]
    done = asyncio.Event()

    async def client(number: int) -> None:
        first, more = KINDS[kind]
        async with there:
            try:
                reader, writer = await _connected(port)
            except OSError:
                ended["refused"] += 1
                return
            finally:
                begun[number].set()
        try:
            writer.write(first)
            ended[await _unless(done if leave else None, _told(kind, reader, writer, more, done))] += 1
        except OSError:
            ended["ended"] += 1
        finally:
            writer.transport.abort()

    tasks = [asyncio.create_task(client(number)) for number in range(clients)]
    for each in begun:
        await each.wait()
    if during is not None:
        await asyncio.to_thread(during)
    done.set()
    await asyncio.gather(*tasks)
    return ended


async def _unless(done: asyncio.Event | None, told: Coroutine[Any, Any, str]) -> str:
    """Return what a client is told, or that it left before."""
    if done is None:
        return await told
    telling, leaving = asyncio.ensure_future(told), asyncio.ensure_future(done.wait())
    await asyncio.wait((telling, leaving), return_when=asyncio.FIRST_COMPLETED)
    leaving.cancel()
    if telling.done():
        return telling.result()
    telling.cancel()
    await asyncio.wait((telling,))
    return "left"


async def _connected(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    own = socket.socket()
    own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVES)
    own.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(own, ("127.0.0.1", port))
        return await asyncio.open_connection(sock=own, limit=1 << 16)
    except OSError:
        own.close()
        raise


async def _told(
    kind: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, more: bytes, done: asyncio.Event
) -> str:
    """Send on until the service ends the connection; return the status of its answer, or that it gave none."""
    if kind == "unread":
        transport: Any = writer.transport
        transport.pause_reading()
        await done.wait()
        while not writer.transport.is_closing():  # reading nothing, a write alone tells that nobody is there
            writer.write(b"\r\n")
            await asyncio.sleep(TRICKLE_S)
        return "ended"
    answer = asyncio.create_task(reader.read(64))
    try:
        while more and not answer.done():
            writer.write(more)
            await asyncio.wait((answer,), timeout=TRICKLE_S)
        head = await answer
    finally:
        answer.cancel()
    while head and await reader.read(1 << 16):
        pass
    return head[9:12].decode() if head.startswith(b"HTTP/1.1 ") else "ended"


def load(port: int, rate: float, seconds: float) -> dict[str, float]:
    """Return how a steady load of decisions fared, from a process of its own: the median of four, the sum of errors."""
    command = [sys.executable, "-m", "tests.bench.load", str(port), DECIDE, str(seconds / _WINDOWS), "16", str(rate)]
    found = list[dict[str, float]]()
    for _ in range(_WINDOWS):
        done = subprocess.run(command, input=QUESTION, capture_output=True, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr.decode()[-1000:])
        found.append(json.loads(done.stdout))
    medians = {name: statistics.median(one[name] for one in found) for name in ("p50_ms", "p99_ms")}
    return medians | {"errors": sum(one["errors"] for one in found)}


class Service:
    """A running service and its processes."""

    def __init__(self, pid: int) -> None:
        top = psutil.Process(pid)
        self._parts = [top, *top.children(recursive=True)]

    def mib(self) -> float:
        """Return how much memory it holds."""
        return round(sum(part.memory_info().rss for part in self._parts) / (1 << 20), 1)

    def seconds(self) -> float:
        """Return how long it has had a core."""
        return sum(times.user + times.system for times in (part.cpu_times() for part in self._parts))


@contextmanager
def apart(own: bool) -> Iterator[None]:
    """Start servers within, on a core of their own; this process and what it starts later have the others."""
    cores = sorted(os.sched_getaffinity(0))
    if own and len(cores) > 1:
        os.sched_setaffinity(0, cores[:1])
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores[1:] if own and len(cores) > 1 else cores)


def main() -> None:
    """Run the soak and print its line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=10_000)
    parser.add_argument("--rate", type=float, default=200.0)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--kind", choices=KINDS, help="this one alone, with its share of the clients")
    parser.add_argument("--together", action="store_true", help="let the service share its core with clients and load")
    given = parser.parse_args()
    each, kinds = given.clients // len(KINDS), [given.kind] if given.kind else list(KINDS)
    rows: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as running:
        home = Path(folder)
        settings, noop = (load_settings({}, home=folder, port=free_port()) for _ in range(2))
        init_loop(settings, LOOP)
        quiet = ("--no-access-log", "--log-level", "warning", "--port", str(noop.port))
        with apart(not given.together):
            commands = {
                "service": (serve_command(settings), settings),
                "no-op": ([sys.executable, "-m", "uvicorn", *quiet, "tests.bench.noop_service:app"], noop),
            }
            pids = dict[str, int]()
            for name, (command, of) in commands.items():
                started = running.enter_context(process(name, command, of, home / f"{name}.log"))
                wait_until_ready(started, of, home / f"{name}.log")
                pids[name] = started.pid
        service = Service(pids["service"])
        load(settings.port, given.rate, given.seconds)
        begun = service.mib()
        for kind in kinds:
            row = rows[kind] = measured(service, settings.port, noop.port, kind, each, given.rate, given.seconds)
            print(json.dumps({"kind": kind, "clients": each} | row), flush=True)
    ratio = statistics.median(row["ratio"] for row in rows.values())
    errors = sum(row["errors"] for row in rows.values())
    ended = sum(sum(row["ended"].values()) for row in rows.values())
    shown = {"clients": each * len(kinds), "ended": ended, "errors": errors, "p99_ratio_median": ratio}
    print(json.dumps({"name": "slow_clients", **shown, "mib_at_first": begun, "rows": rows}))
    sys.exit(errors > 0 or ended != each * len(kinds))


def measured(
    service: Service, port: int, noop: int, kind: str, clients: int, rate: float, seconds: float
) -> dict[str, Any]:
    """Return how decisions fare alone, beside clients of a kind elsewhere, and beside them here."""
    found, cores = list[dict[str, float]](), list[float]()

    def during() -> None:
        begun, had = time.perf_counter(), service.seconds()
        found.append(load(port, rate, seconds))
        cores.append(round((service.seconds() - had) / (time.perf_counter() - begun), 3))

    during()
    asyncio.run(turn(noop, kind, clients, during, leave=True))
    ended = asyncio.run(turn(port, kind, clients, during))
    _, elsewhere, here = found
    return {
        "p50_ms": [round(one["p50_ms"], 2) for one in found],
        "p99_ms": [round(one["p99_ms"], 2) for one in found],
        "cores": cores,
        "ratio": round(here["p99_ms"] / elsewhere["p99_ms"], 2),
        "mib": service.mib(),
        "ended": dict(ended),
        "errors": int(sum(one["errors"] for one in found)),
    }


if __name__ == "__main__":
    main()
