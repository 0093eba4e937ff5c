"""A service whose log is JSON writes one object a line and each line once, and its traces reach a collector."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

import pytest

from pipelines.operations.init import init_loop
from pipelines.operations.processes import free_port, process, serve_command, wait_until_ready
from pipelines.settings import load_settings
from tests.e2e.traffic import BODY
from tests.serving.telemetry.test_traces import CALLERS, Collector

KEY = "a-secret-key"


@pytest.mark.connected
def test_every_line_of_a_service_is_an_object_and_its_traces_are_sent(tmp_path: Path) -> None:
    collector = Collector()
    settings = load_settings(
        {},
        home=str(tmp_path / "home"),
        port=free_port(),
        log_format="json",
        api_keys=KEY,
        traces=collector.url,
        traces_share=0.0,
    )
    init_loop(settings, "news")
    output = tmp_path / "output"
    with process("service", serve_command(settings), settings, output) as running:
        wait_until_ready(running, settings, output)
        url = f"http://127.0.0.1:{settings.port}/v1/loops/news/decide"
        headers = {"traceparent": CALLERS, "authorization": f"Bearer {KEY}"}
        with urllib.request.urlopen(urllib.request.Request(url, json.dumps(BODY).encode(), headers), timeout=300):
            pass
    collector.close()
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    assert all({"time", "level", "logger", "event"} <= line.keys() for line in lines)
    assert [line["logger"] for line in lines if line["event"].startswith("open host=")] == ["serving.http.door"]
    assert {line["logger"].partition(".")[0] for line in lines} >= {"bentoml", "serving"}
    assert KEY not in output.read_text()
    assert set(collector.spans()) == {"POST /v1/loops/{loop}/decide", "decide", "spool.queue", "spool.commit"}
