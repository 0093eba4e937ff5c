"""A night in words: what came of it, what failed and what to do, from the manifest alone."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from decision.drift.compare import drift
from decision.drift.profile import profile_of
from pipelines.evaluation.alarms import Alarmed
from pipelines.evaluation.drift import Drifted, drift_alarms
from pipelines.reports.night import as_text, forget_nights, keep_night, night_key, night_told
from pipelines.runs import Run, Step
from pipelines.settings import load_settings
from tests.worlds.drifting import night

AT = datetime(2026, 3, 4, 3, 15, tzinfo=UTC)


def run_of(*, status: Any = "done", error: str = "", **results: dict[str, Any]) -> Run:
    steps = [Step(name=name, finished_at=AT.isoformat(), result=result) for name, result in results.items()]
    return Run(run_id="n1", loop="news", started_at=AT, seed=1, status=status, error=error, steps=steps)


def test_a_failed_night_names_step_cause_and_remedy() -> None:
    error = "train: OSError: [Errno 28] No space left on device; /data is full: make room, or move it"
    told = night_told(run_of(status="failed", error=error, ingest={}, join={"joined": {}}))
    failure = told.sections[0]
    assert failure.title == "What failed"
    assert failure.lines[0].startswith("Step: train, so nothing was learned. Finished before: ingest, join.")
    assert failure.lines[1] == "Cause: OSError: [Errno 28] No space left on device"
    assert failure.lines[2] == "What to do: /data is full: make room, or move it."
    assert "decision nightly news" in failure.lines[3]
    assert not told.good


def test_a_refused_night_says_who_stays_in_charge_and_why() -> None:
    reason = "the lift over version 3 is at least -0.02, with 97.5 % confidence: that is not above 0"
    promoted = {"version": "4", "promoted": False, "champion": "3", "candidate": None, "reasons": [reason]}
    estimate = {"value": 0.2, "low": None, "high": 0.3, "ess": 41.0}
    evaluated = {
        "values": [{"policy": "version 4", "dr": estimate}],
        "lift_estimate": estimate,
        "against": "version 3",
        "rows": 1_234,
    }
    text = as_text(night_told(run_of(evaluate=evaluated, promote=promoted)))
    assert "Version 4 was refused; version 3 stays in charge." in text
    assert f"T{reason[1:]}." in text
    assert "1,234 decisions" in text
    assert "unbounded" in text


@pytest.fixture(scope="module")
def drifted() -> dict[str, Any]:
    rng = np.random.default_rng(1)
    profile = profile_of(night(rng, 8_000))
    found = Drifted(version="3", found=drift(profile, night(rng, 3_000, on_mobile=0.2, tablet=0.1), error=0.001))
    alarmed = Alarmed(rows=3_000, before=8_000, alarms=drift_alarms(found), drift=found)
    return msgspec.json.decode(msgspec.json.encode(alarmed))


def test_drift_is_told_feature_by_feature_and_in_what_to_watch(drifted: dict[str, Any]) -> None:
    told = night_told(run_of(alarms=drifted))
    watch = next(section for section in told.sections if section.title == "What to watch")
    assert any("device=mobile" in line for line in watch.lines)
    assert any("feature 'device' moved" in line and "'tablet'" in line for line in watch.lines)
    tables = {section.title: section.table for section in told.sections if section.table}
    assert [row[0] for row in tables["Drift"].rows if row[-1] == "alarm"] == ["device"]
    assert tables["Rewards beside training"].rows[0][-1] == "alarm"
    assert not told.good


def test_reports_are_kept_and_go_with_their_runs(drifted: dict[str, Any], tmp_path: Path) -> None:
    settings, run = load_settings({}, home=str(tmp_path)), run_of(alarms=drifted, train={"skipped": "<b>few</b>"})
    page = Path(keep_night(settings, run))
    assert page == tmp_path / night_key("news", "n1", "html")
    assert "device=mobile" in page.read_text()
    assert "<b>" not in page.with_suffix(".txt").read_text().replace("<b>few</b>", "")
    forget_nights(settings, [run])
    assert not page.exists()
    forget_nights(settings, [run])


def test_a_report_that_cannot_be_made_stops_no_night(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = load_settings({}, home=str(tmp_path))
    with caplog.at_level(logging.WARNING):
        assert keep_night(settings, run_of(evaluate={"values": 3})) == ""
    assert "was not written" in caplog.text
