"""The benchmarks of evaluation run small and print the line they promise."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest


@pytest.mark.connected
@pytest.mark.parametrize(
    ("name", "arguments"), [("evaluation", []), ("replay", []), ("coverage", ["--logs", "3", "--payments", "0"])]
)
def test_bench_prints_its_line(name: str, arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", f"tests.bench.{name}", *arguments],
        env=os.environ | {"QUICK": "1", "RAY": "0"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    line = json.loads(done.stdout.strip().splitlines()[-1])
    assert set(line) == {"name", "ratios", "detail"}
    assert line["name"] == name
    assert line["ratios"]
    assert all(ratio >= 0 for ratio in line["ratios"].values())
