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
from pipelines.evaluation.standing import TO_DO
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
    told = night_told(run_of(status="failed", error=error, ingest={}, join={"joined": {}}), TO_DO)
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
    text = as_text(night_told(run_of(evaluate=evaluated, promote=promoted), TO_DO))
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
    told = night_told(run_of(alarms=drifted), TO_DO)
    watch = next(section for section in told.sections if section.title == "What to watch")
    assert any("device=mobile" in line for line in watch.lines)
    assert any("Feature 'device' moved" in line and "'tablet'" in line for line in watch.lines)
    assert all(line[0].isupper() and line.endswith(".") for line in watch.lines)
    assert any(
        line.endswith("Check what sends this feature. If the world changed, the coming nights learn it.")
        for line in watch.lines
    )
    tables = {section.title: section.table for section in told.sections if section.table}
    assert [row[0] for row in tables["Drift"].rows if row[-1] == "alarm"] == ["device"]
    assert tables["Rewards beside training"].rows[0][-1] == "alarm"
    assert not told.good


def test_every_number_of_the_data_is_named_in_words() -> None:
    joined = {
        "joined": 1_806,
        "expired": 4_194,
        "dropped": {"no_activation": 3},
        "clipped": 2,
        "pending": 7,
        "table_version": 9,
    }
    alarmed = Alarmed(rows=6_000, before=0, alarms=[], entropy=0.06531, entropy_before=0.08418, join_rate=0.301)
    text = as_text(night_told(run_of(join={"joined": joined}, alarms=msgspec.to_builtins(alarmed)), TO_DO))
    assert (
        "1,806 decisions met an outcome, 4,194 had none when their time was over, 3 were dropped (no activation)"
        in text
    )
    assert "7 are open, 2 rewards were cut to the range" in text
    assert "the entropy of the probabilities beside that of choosing at random: 6.5%, 8.4% before." in text
    assert "Share that met an outcome: 30.1%." in text


def test_a_report_is_no_wider_than_a_phone_though_the_name_of_its_run_is_long(tmp_path: Path) -> None:
    page = Path(keep_night(load_settings({}, home=str(tmp_path)), run_of(), TO_DO)).read_text()
    assert "overflow-wrap: anywhere" in page.split("h1 {")[1].split("}")[0]


def test_reports_are_kept_and_go_with_their_runs(drifted: dict[str, Any], tmp_path: Path) -> None:
    settings, run = load_settings({}, home=str(tmp_path)), run_of(alarms=drifted, train={"skipped": "<b>few</b>"})
    page = Path(keep_night(settings, run, TO_DO))
    assert page == tmp_path / night_key("news", "n1", "html")
    assert "device=mobile" in page.read_text()
    assert "<b>" not in page.with_suffix(".txt").read_text().replace("<b>few</b>", "")
    forget_nights(settings, [run])
    assert not page.exists()
    forget_nights(settings, [run])


def test_a_report_that_cannot_be_made_stops_no_night(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = load_settings({}, home=str(tmp_path))
    with caplog.at_level(logging.WARNING):
        assert keep_night(settings, run_of(evaluate={"values": 3}), TO_DO) == ""
    assert "was not written" in caplog.text
