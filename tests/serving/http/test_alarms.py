"""What a night raised is on /metrics and in `decision top` until an operator clears it."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipelines.cli import app
from pipelines.evaluation.standing import KINDS, Alarm, raise_alarms
from pipelines.operations.installation import Installation
from pipelines.operations.status import look
from tests.serving.http.test_app import Caller, open_at


def test_alarms_are_seen_until_they_are_cleared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    core = open_at(tmp_path)
    call = Caller(core)
    assert 'decision_alarms{kind="value",loop="news"} 0.0' in call("GET", "/metrics").text
    found = [Alarm(kind="untried", subject=action, text=f"{action} was never tried") for action in "ab"]
    raise_alarms(core.settings, "news", "night", [*found, Alarm(kind="value", text="rewards fell")])
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
