"""Thousands of slow clients, one kind after the other, while others go on deciding: what it costs, and how it ends.

``python -m tests.soak.slow_clients [--clients N] [--rate R] [--seconds S]``. Each kind has a share of the clients, all
of whom are there at once: half-sent heads, heads that come a byte at a time, bodies that do, posts without a body,
connections kept for nothing, and answers that nobody reads. The load is a steady one on kept connections; its tail is
taken before each kind and during it. Ends with an error where a client is still there at the end, or a decision failed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from pipelines.operations.init import init_loop
from pipelines.operations.processes import free_port, process, serve_command, wait_until_ready
from pipelines.settings import Settings, load_settings

LOOP = "news"
DECIDE = f"/v1/loops/{LOOP}/decide"
QUESTION = b'{"context":{"hour":9},"actions":[{"id":"a"},{"id":"b"}]}'
POST = b"POST %s HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 500000\r\n\r\n"
TRICKLE_S = 1.0
AT_ONCE = 200
_ASKED = 8
"""Answers of a client that reads none: more than the system keeps for it."""
_RECEIVES = 4_096


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


async def turn(port: int, kind: str, clients: int, during: Callable[[], Any] | None = None) -> Counter[str]:
    """Be so many slow clients of a kind; return what each was told last before its connection was ended.

    Args:
        port: the service's.
        kind: one of `KINDS`.
        clients: how many.
        during: called once all are there, in a thread; they stay until it has returned.
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
            ended[await _told(kind, reader, writer, more, done)] += 1
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
    while more and not answer.done():
        writer.write(more)
        await asyncio.wait((answer,), timeout=TRICKLE_S)
    head = await answer
    while head and await reader.read(1 << 16):
        pass
    return head[9:12].decode() if head.startswith(b"HTTP/1.1 ") else "ended"


def load(settings: Settings, rate: float, seconds: float) -> dict[str, float]:
    """Return how a steady load of decisions fared, from a process of its own."""
    command = [sys.executable, "-m", "tests.bench.load", str(settings.port), DECIDE, str(seconds), "16", str(rate)]
    done = subprocess.run(command, input=QUESTION, capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.decode()[-1000:])
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=10_000)
    parser.add_argument("--rate", type=float, default=200.0)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--kind", choices=KINDS, help="this one alone, with its share of the clients")
    given = parser.parse_args()
    each, kinds = given.clients // len(KINDS), [given.kind] if given.kind else list(KINDS)
    rows: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        settings = load_settings({}, home=folder, port=free_port())
        init_loop(settings, LOOP)
        with process("service", serve_command(settings), settings, home / "service.log") as running:
            wait_until_ready(running, settings, home / "service.log")
            top = psutil.Process(running.pid)

            def held() -> float:
                return sum(part.memory_info().rss for part in (top, *top.children(recursive=True))) / (1 << 20)

            load(settings, given.rate, given.seconds)
            print(f"{'kind':<14}{'clients':>8}{'p50 ms':>16}{'p99 ms':>16}{'ratio':>7}{'MiB':>8}  how they ended")
            begun = held()
            for kind in kinds:
                before = load(settings, given.rate, given.seconds)
                found: list[dict[str, float]] = []

                def during(found: list[dict[str, float]] = found) -> None:
                    found.append(load(settings, given.rate, given.seconds))

                started = time.perf_counter()
                ended = asyncio.run(turn(settings.port, kind, each, during))
                took, with_them = time.perf_counter() - started, found[0]
                row = {
                    "p50": (round(before["p50_ms"], 2), round(with_them["p50_ms"], 2)),
                    "p99": (round(before["p99_ms"], 2), round(with_them["p99_ms"], 2)),
                    "ratio": round(with_them["p99_ms"] / before["p99_ms"], 2),
                    "mib": round(held(), 1),
                    "ended": dict(ended),
                    "errors": int(before["errors"] + with_them["errors"]),
                    "seconds": round(took, 1),
                }
                rows[kind] = row
                p50, p99 = ("{} -> {}".format(*row[name]) for name in ("p50", "p99"))
                print(
                    f"{kind:<14}{each:>8}{p50:>16}{p99:>16}{row['ratio']:>7}{row['mib']:>8}  {dict(ended)}", flush=True
                )
    ratio = statistics.median(row["ratio"] for row in rows.values())
    errors = sum(row["errors"] for row in rows.values())
    ended_ = sum(sum(row["ended"].values()) for row in rows.values())
    shown = {"clients": each * len(kinds), "ended": ended_, "errors": errors, "p99_ratio_median": ratio}
    print(json.dumps({"name": "slow_clients", **shown, "mib_at_first": round(begun, 1), "rows": rows}))
    sys.exit(errors > 0 or ended_ != each * len(kinds))


if __name__ == "__main__":
    main()
