"""What traces cost a decision: all traced, and one in a hundred, against none; and what is left where they are off.

The application is called in this process, many requests at a time, durable as ever. Time is the processor's, of all
threads, the one that sends spans among them; the collector is another process that takes them and does nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipelines.logs import ABOUT
from pipelines.operations.init import init_loop
from pipelines.operations.processes import free_port
from pipelines.operations.waiting import wait_until
from pipelines.settings import load_settings
from serving.core import Core
from serving.http.app import App
from serving.start import open_core
from serving.telemetry.traces import CURRENT

QUICK = os.environ.get("QUICK") == "1"
ROUNDS, DECISIONS, AT_ONCE = (5, 1_000, 50) if QUICK else (11, 5_000, 50)
HOOKS = 200_000
BODY = json.dumps({"context": {"hour": 9}, "actions": [{"id": "a"}, {"id": "b"}]}).encode()
_COLLECTOR = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200); self.send_header("content-length", "0"); self.end_headers()
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


async def decide(app: App) -> None:
    """Ask for one decision."""

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": BODY, "more_body": False}

    async def send(message: Any) -> None:
        if message.get("status", 200) != 200:
            raise RuntimeError(str(message))

    scope = {"type": "http", "method": "POST", "path": "/v1/loops/news/decide", "query_string": b"", "headers": []}
    await app(scope, receive, send)


async def many(app: App, number: int) -> float:
    """Return the seconds of a processor that so many decisions take."""
    begun = time.process_time()
    for _ in range(0, number, AT_ONCE):
        await asyncio.gather(*(asyncio.create_task(decide(app)) for _ in range(AT_ONCE)))
    return time.process_time() - begun


class _Call:
    def told(self) -> dict[str, str]:
        """Stand for a request's."""
        return {}


def hooks(core: Core) -> float:
    """Return the nanoseconds of what a decision passes where nothing is traced, beside a loop that does nothing."""
    call, group, trace = _Call(), [None], None

    def all_of_them() -> None:
        ABOUT.set(call.told)  # the request
        if core.traces is not None:
            raise RuntimeError("traced")
        CURRENT.get()  # the question
        [each for each in group if each is not None]  # the turn, at its dearest: of one
        [each for each in group if each is not None]  # the commit, likewise
        _ = 0 if trace is None else 1  # the entry

    def timed(work: Callable[[], None]) -> float:
        begun = time.thread_time_ns()
        for _ in range(HOOKS):
            work()
        return (time.thread_time_ns() - begun) / HOOKS

    return statistics.median(timed(all_of_them) - timed(lambda: None) for _ in range(ROUNDS))


def main() -> None:
    """Run the benchmark and print its line."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        port = free_port()
        collector = subprocess.Popen([sys.executable, "-c", _COLLECTOR, str(port)])
        stack.callback(collector.wait)
        stack.callback(collector.kill)
        apps: dict[str, App] = {}
        for name, changes in {
            "off": {},
            "one in a hundred": {"traces": f"http://127.0.0.1:{port}", "traces_share": 0.01},
            "all": {"traces": f"http://127.0.0.1:{port}", "traces_share": 1.0},
        }.items():
            settings = load_settings({}, home=str(Path(folder) / name.replace(" ", "-")), **changes)
            init_loop(settings, "news")
            core = open_core(settings)
            stack.callback(core.close)
            apps[name] = App(lambda core=core: core)
            wait_until(lambda core=core: core.ready() is None, "the loop")
        took: dict[str, list[float]] = {name: [] for name in apps}
        for number in range(ROUNDS + 1):
            for name, app in apps.items():
                seconds = asyncio.run(many(app, DECISIONS))
                if number:  # the first warms up
                    took[name].append(1e6 * seconds / DECISIONS)
            print(f"round {number}", file=sys.stderr)
        off_ns = hooks(apps["off"].core)
    micros = {name: statistics.median(each) for name, each in took.items()}
    ratios = {
        f"{name} traced, of none": round(
            statistics.median(a / b for a, b in zip(took[name], took["off"], strict=True)), 3
        )
        for name in ("one in a hundred", "all")
    }
    detail = {"off_ns": round(off_ns), "us": {name: round(value, 1) for name, value in micros.items()}}
    print(json.dumps({"name": "traces", "ratios": ratios, "detail": detail}))


if __name__ == "__main__":
    main()
