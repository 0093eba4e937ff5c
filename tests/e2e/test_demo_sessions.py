"""A policy with memory from end to end: service, bandit, training from the log, gate, guard, books, report."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.parts import require

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.connected
def test_the_demo_of_policies_with_memory_loses_nothing_and_recomputes_every_propensity(tmp_path: Path) -> None:
    require(importlib.util.find_spec("torch"), "torch is not installed")
    command = [sys.executable, "-m", "pipelines.cli", "demo", "--sessions", "--quick", "--json", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert found["decided"] == (60 + 80 + 2 * 40) * 20
    for nothing in ("lost", "failed_requests", "differing_answers", "differing_propensities"):
        assert found[nothing] == 0, nothing
    assert found["repeated_outcomes"] > 0
    assert found["propensities"]["ok"], found["propensities"]["reasons"]
    bandit, session = found["versions"]
    assert (bandit["oracle"], bandit["verdict"]) == ("logistic", "promoted")
    assert session["oracle"] in ("sim2rec", "clone")
    assert session["verdict"] in ("rolling_out", "refused")
    assert any("the simulator held out" in reason for reason in session["reasons"]) or session["verdict"] == "refused"
    (belief,) = found["belief"]
    assert belief["version"] == session["version"]
    assert (belief["decisions"] > 0) == (session["verdict"] == "rolling_out")
    # What the bandit costs its readers shows in any sample of them.
    assert found["returns"]["bandit"] < found["returns"]["logged"] < found["returns"]["optimum"]
    page = Path(found["report"]).read_text()
    assert page.count("<svg ") == 5
    assert "http://" not in page.replace("http://www.w3.org/", "")
