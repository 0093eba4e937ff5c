"""The demonstration from end to end: service, traffic, generations, promotions, books, report."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipelines.operations.kafka_server import missing_parts
from tests.parts import require

ROOT = Path(__file__).resolve().parents[2]
FILES = {
    *("log.db", "log.db-writers", "state.db", "mlflow.db", "mlflow.lock", "registry.lock", "tidy.lock"),
    *("cache", "demo", "imports", "lake", "loops", "metrics", "models", "reports", "runs"),
}
"""What one folder holds: that of the first release, State, reports of nights, and the lock of their last step."""


def demo(tmp_path: Path, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "pipelines.cli", "demo", "--quick", "--json", "--out", str(tmp_path / "out")]
    done = subprocess.run([*command, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(done.stdout.splitlines()) == 1
    return json.loads(done.stdout)


def check_demo(result: dict[str, Any]) -> None:
    parts = ("joined", "pending", "expired", "dropped")
    assert result["decided"] == sum(result[name] for name in parts) >= 1000
    for nothing in ("lost", "dead_letters", "orphan_outcomes", "failed_requests"):
        assert result[nothing] == 0, nothing
    for wrong in ("changed_answers", "differing_answers", "mixed_versions"):
        assert result[wrong] == 0, wrong
    assert result["joined"] > 0
    assert result["expired"] > 0
    first, last = result["generations"][0], result["generations"][-1]
    assert first["promoted"]
    assert last["greedy_accuracy"] > (0.75 if len(result["generations"]) > 1 else 0.6)  # chance is 0.1
    assert last["true_value"] > 0.5
    assert last["ci"][0] < last["value"] < last["ci"][1]
    assert result["champion"] in {entry["version"] for entry in result["generations"]}
    assert result["regret"] < 0.9 * result["regret_uniform"]
    assert result["propensities"]["ok"], result["propensities"]["reasons"]
    assert result["propensities"]["redrawn"] == result["decided"]
    page = Path(result["report"]).read_text()
    assert page.count("<svg ") == 5
    assert "http://" not in page.replace("http://www.w3.org/", "")


@pytest.mark.connected
def test_demo_learns_loses_nothing_and_believes_only_what_it_can(tmp_path: Path) -> None:
    home = tmp_path / "home"
    result = demo(tmp_path, "--home", str(home))
    check_demo(result)
    verdicts = {entry["log"].removeprefix("open-bandit-"): entry["propensities_ok"] for entry in result["open_bandit"]}
    assert [log for log, ok in verdicts.items() if not ok] == ["bts-women"]
    assert len(verdicts) == 6
    assert "bts/women fails the propensity check" in Path(result["report"]).read_text()
    assert {path.name for path in home.iterdir()} == FILES


@pytest.mark.connected
def test_demo_on_kafka_has_the_same_result(tmp_path: Path) -> None:
    require(not missing_parts(), missing_parts())
    result = demo(tmp_path, "--log", "kafka", "--generations", "1", "--no-open-bandit")
    check_demo(result)
    assert result["log"] == "kafka"
