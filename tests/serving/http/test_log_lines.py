"""A line that a request leads to says of which loop, event and trace it is, and holds no key."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from decision.batch import Batch, Floats
from serving.core import Core
from tests.serving.http.test_app import QUESTION, Caller, open_at
from tests.serving.telemetry.test_traces import CALLERS

KEY = "a-secret-key"


def told(stream: io.StringIO, event: str) -> list[dict[str, Any]]:
    return [line for line in map(json.loads, stream.getvalue().splitlines()) if event in line["event"]]


class Broken:
    """A policy that fails on what it is sent."""

    def pmf(self, batch: Batch) -> Floats:
        raise RuntimeError(f"cannot score {batch.contexts[0]}")


def test_a_fault_is_told_with_loop_event_and_trace_and_without_the_key(
    tmp_path: Path, lines: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    core = open_at(tmp_path, api_keys=KEY)

    def explain(self: Core, event_id: str, loop: str = "") -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(Core, "explain", explain)
    headers = {"traceparent": CALLERS, "authorization": f"Bearer {KEY}", "ocp_apim_subscription_key": KEY}
    assert Caller(core)("GET", "/v1/decisions/e%0A1?loop=news", **headers).status_code == 500
    core.close()
    (line,) = told(lines, "failed")
    assert (line["level"], line["event_id"], line["trace_id"]) == ("error", "e\n1", CALLERS.split("-")[1])
    assert "a fault of ours" in line["error"]
    assert KEY not in lines.getvalue()


def test_a_policy_that_fails_is_told_once_with_its_version_and_nothing_that_it_was_sent(
    tmp_path: Path, lines: io.StringIO
) -> None:
    core = open_at(tmp_path)
    core.loops._snapshots["news"] = replace(core.loops._snapshots["news"], policy=Broken(), policy_version="7")
    call = Caller(core)
    core.loops.close()  # which would put the baseline back
    for number in range(3):
        asked = QUESTION | {"event_id": f"e{number}", "context": {"name": "somebody"}}
        answer = call("POST", "/v1/loops/news/decide", asked, traceparent=CALLERS)
        assert (answer.status_code, answer.json()["policy_version"]) == (200, "baseline:uniform")
    core.close()
    (line,) = told(lines, "the policy failed")
    assert (line["loop"], line["event_id"], line["version"], line["error"]) == ("news", "e0", "7", "RuntimeError")
    assert line["at"].startswith("test_log_lines.py:")
    assert "somebody" not in lines.getvalue()
