"""What callers ask leaves no trace in the metrics but in numbers: labels come from the table of routes alone."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.operations.waiting import wait_until
from serving import metrics
from serving.core import Core
from serving.http import app as app_module
from serving.http.app import App
from serving.problems import TITLES
from tests.serving.http.test_app import open_at

DIFFERENT = 1_000
TRACED = 250
"""Different ids while allocations are traced, which makes a request 40 times as long."""
FRAMES = 12
"""Of a trace: from the application to whatever it calls."""
AT_ONCE = 100
BY_REQUESTS = ("decision_request", "decision_refused", "decision_outcomes", "decision_decided", "decision_repeated")
"""How the names begin of what requests count; the rest is set by threads, in their own time."""


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Core]:
    opened = open_at(tmp_path_factory.mktemp("home"))
    yield opened
    opened.close()


async def ask(app: App, method: str, path: str, body: bytes) -> int:
    """Return the status of one answer."""
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path, "query_string": b"", "headers": []}
    await app(scope, receive, send)
    return sent[0]["status"]


async def flood(app: App, round_: str, different: int = AT_ONCE) -> set[int]:
    """Ask about so many different ids, and for as many paths that are none; return the statuses."""
    seen = set[int]()
    for begun in range(0, different, AT_ONCE):
        ids = [f"{round_}{number}" for number in range(begun, min(begun + AT_ONCE, different))]
        asked = [
            each
            for id_ in ids
            for each in (
                ask(app, "POST", f"/personalizer/v1.0/events/{id_}/reward", b'{"value": 1}'),
                ask(app, "GET", f"/nothing/{id_}", b""),
                ask(app, f"M{id_}", "/livez", b""),
                ask(app, "POST", f"/v1/loops/l{id_}/decide", b"{}"),
            )
        ]
        seen.update(await asyncio.gather(*asked))
    return seen


def series() -> set[str]:
    """Return the series of requests that a scrape shows, without their values."""
    lines = metrics.exposition().decode().splitlines()
    return {line.rpartition(" ")[0] for line in lines if line.startswith(BY_REQUESTS)}


def held() -> int:
    """Return the bytes that the application has allocated and that are kept; other threads' and tests' do not count."""
    gc.collect()
    ours = [tracemalloc.Filter(True, app_module.__file__, all_frames=True)]
    return sum(found.size for found in tracemalloc.take_snapshot().filter_traces(ours).statistics("filename"))


def test_thousands_of_ids_and_paths_add_no_series_and_no_memory(core: Core) -> None:
    app = App(lambda: core)
    assert asyncio.run(flood(app, "a", DIFFERENT)) == {204, 404, 405}  # what is held within a bound is full then
    before = series()
    tracemalloc.start(FRAMES)
    try:
        asyncio.run(flood(app, "b"))
        first = held()
        asyncio.run(flood(app, "c", TRACED))
        wait_until(lambda: core.spool.depth == 0, "the spool")
        second = held()
    finally:
        tracemalloc.stop()
    assert series() == before
    assert not [name for name in before if "nothing" in name or "a1" in name]
    assert second - first < 16 * TRACED  # bytes; one kept id alone takes more


def test_counters_of_loops_and_refusals_are_there_before_anything_is_counted(tmp_path: Path) -> None:
    fresh = tmp_path / "loops" / "never-asked" / "loop.toml"  # counts are a process's: no other test asks this one
    fresh.parent.mkdir(parents=True)
    fresh.write_text("")
    open_at(tmp_path).close()
    shown = metrics.exposition().decode().splitlines()
    for name in ("decided", "repeated", "outcomes", "fallbacks", "unpinned"):
        assert f'decision_{name}_total{{loop="never-asked"}} 0.0' in shown
    refused = [line.rpartition(" ")[0] for line in shown if line.startswith("decision_refused_total")]
    assert refused.count('decision_refused_total{status="503"}') == 1
    assert set(refused) == {f'decision_refused_total{{status="{status}"}}' for status in TITLES}
