"""What a night raised is on /metrics and in `decision top` until an operator clears it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipelines.cli import app
from pipelines.evaluation.standing import KINDS, Alarm, Figures, raise_alarms
from pipelines.operations.init import init_loop
from pipelines.operations.installation import Installation
from pipelines.operations.status import look
from pipelines.settings import load_settings
from tests.serving.http.test_app import Caller, open_at

NOW = datetime(2026, 1, 5, tzinfo=UTC)


def test_what_a_night_counted_is_seen_and_what_it_does_not_know_is_no_number(tmp_path: Path) -> None:
    init_loop(load_settings({}, home=str(tmp_path)), "nightless")
    core = open_at(tmp_path)
    call = Caller(core)
    decisions, strays = {"joined": 5, "pending": 2, "expired": 1, "dropped": 0}, {"late": 3, "orphan": None}
    figures = Figures(at=1_000.0, value=0.25, join_rate=None, decisions=decisions, strays=strays)
    raise_alarms(core.settings, "news", "night", [], figures, now=NOW)
    core.loops.refresh()
    shown = call("GET", "/metrics").text.splitlines()
    assert {
        'decision_night_timestamp_seconds{loop="news"} 1000.0',
        'decision_night_value{loop="news"} 0.25',
        'decision_night_join_rate{loop="news"} NaN',
        'decision_night_decisions{became="joined",loop="news"} 5.0',
        'decision_night_decisions{became="dropped",loop="news"} 0.0',
        'decision_night_stray_outcomes{loop="news",why="late"} 3.0',
        'decision_night_stray_outcomes{loop="news",why="orphan"} NaN',
    } <= set(shown)
    assert not [line for line in shown if "decision_night" in line and "nightless" in line]
    core.close()


def test_alarms_are_seen_until_they_are_cleared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    core = open_at(tmp_path)
    call = Caller(core)
    assert 'decision_alarms{kind="value",loop="news"} 0.0' in call("GET", "/metrics").text
    found = [Alarm(kind="untried", subject=action, text=f"{action} was never tried") for action in "ab"]
    raise_alarms(core.settings, "news", "night", [*found, Alarm(kind="value", text="rewards fell")], now=NOW)
    core.loops.refresh()
    shown = call("GET", "/metrics").text
    assert 'decision_alarms{kind="untried",loop="news"} 2.0' in shown
    assert 'decision_alarms{kind="value",loop="news"} 1.0' in shown
    assert all(f'decision_alarms{{kind="{kind}",loop="news"}}' in shown for kind in KINDS)

    asked = CliRunner().invoke(app, ["alarms", "news", "--home", str(tmp_path), "--clear", "untried:a"])
    assert asked.exit_code == 0, capsys.readouterr()
    core.loops.refresh()
    assert 'decision_alarms{kind="untried",loop="news"} 1.0' in call("GET", "/metrics").text
    with Installation(core.settings) as parts:
        assert [alarm.key for alarm in look(parts).loops[0].alarms] == ["untried:b", "value"]
    core.close()
