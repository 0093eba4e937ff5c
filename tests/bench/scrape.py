"""What a scrape of ``/metrics`` costs against a service that does nothing, and whether it depends on what went before.

Both are uvicorn on one core and answer in turn, on one kept connection each. In between the service is asked about ids,
paths and loops that it has never seen, thousands of them: they must leave no series.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from pipelines.operations.init import init_loop
from pipelines.operations.processes import free_port, process, serve_command, wait_until_ready
from pipelines.settings import load_settings

QUICK = os.environ.get("QUICK") == "1"
ROUNDS, SCRAPES, DIFFERENT = (3, 20, 500) if QUICK else (5, 100, 20_000)
DECIDE = '{"event_id":"%s","context":{"x":1},"actions":[{"id":"a"},{"id":"b"}]}'


def seconds(connection: http.client.HTTPConnection, path: str) -> tuple[float, bytes]:
    """Return how long one answer took, and its body."""
    begun = time.perf_counter()
    connection.request("GET", path)
    response = connection.getresponse()
    body = response.read()
    if response.status != 200:
        raise RuntimeError(f"{path} gave {response.status}")
    return time.perf_counter() - begun, body


def live(connection: http.client.HTTPConnection, begin: int, count: int) -> None:
    """Decide under ids, report of ids, and ask for paths and loops, none of which was there before."""
    for number in range(begin, begin + count):
        for method, path, body in (
            ("POST", "/v1/loops/news/decide", DECIDE % f"e{number}"),
            ("POST", f"/personalizer/v1.0/events/e{number}/reward", '{"value": 1}'),
            ("POST", f"/v1/loops/l{number}/decide", DECIDE % "x"),
            ("GET", f"/nothing/{number}", None),
        ):
            connection.request(method, path, body)
            connection.getresponse().read()


def main() -> None:
    """Run the benchmark and print its line."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        home = Path(folder)
        ours = load_settings({}, home=folder, port=free_port())
        noop = load_settings({}, home=folder, port=free_port())
        init_loop(ours, "news")
        quiet = ("--no-access-log", "--log-level", "warning", "--port", str(noop.port))
        commands = {
            "service": (serve_command(ours), ours),
            "no-op": ([sys.executable, "-m", "uvicorn", *quiet, "tests.bench.noop_service:app"], noop),
        }
        connections: dict[str, http.client.HTTPConnection] = {}
        for name, (command, settings) in commands.items():
            output = home / f"{name}.log"
            running = stack.enter_context(process(name, command, settings, output))
            wait_until_ready(running, settings, output)
            connections[name] = http.client.HTTPConnection("127.0.0.1", settings.port, timeout=300)
        live(connections["service"], 0, 20)
        ratios: list[float] = []
        lines, costs = list[int](), list[float]()
        for number in range(ROUNDS + 1):
            each: dict[str, list[float]] = {"service": [], "no-op": []}
            text = b""
            for _ in range(SCRAPES):
                took, text = seconds(connections["service"], "/metrics")
                each["service"].append(took)
                each["no-op"].append(seconds(connections["no-op"], "/")[0])
            lines.append(len(text.splitlines()))
            costs.append(statistics.median(each["service"]))
            ratios.append(costs[-1] / statistics.median(each["no-op"]))
            print(f"round {number}: {1e3 * costs[-1]:.2f} ms, {lines[-1]} lines, {ratios[-1]:.1f}", file=sys.stderr)
            connections["no-op"].close()  # it is opened anew when it is needed: services end what is idle
            if number < ROUNDS:
                live(connections["service"], 20 + number * (DIFFERENT // ROUNDS), DIFFERENT // ROUNDS)
        for connection in connections.values():
            connection.close()
    result = {"scrape, of a no-op": ratios[-1], "scrape after all, of before": ratios[-1] / ratios[0]}
    detail = {"ms": round(1e3 * costs[-1], 2), "lines_before": lines[0], "lines_after": lines[-1], "ids": DIFFERENT}
    print(json.dumps({"name": "scrape", "ratios": {k: round(v, 3) for k, v in result.items()}, "detail": detail}))


if __name__ == "__main__":
    main()
