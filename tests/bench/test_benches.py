"""The benchmarks run and print the line they promise; what they measure is for people to read, not for tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest


@pytest.mark.connected
@pytest.mark.parametrize(
    "name",
    [
        *("serving", "scrape", "ingest", "history", "simulators", "training"),
        *("real_data", "guard", "session", "commands", "in_process", "console", "panels", "traces", "offline"),
    ],
)
def test_bench_prints_ratios_against_its_reference(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", f"tests.bench.{name}"],
        env=os.environ | {"QUICK": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    line = json.loads(done.stdout.strip().splitlines()[-1])
    assert set(line) == {"name", "ratios", "detail"}
    assert line["name"] == name
    assert line["ratios"]
    assert all(ratio > 0 for ratio in line["ratios"].values())
    assert line["detail"].get("errors", 0) == 0
