"""Whichever command comes first makes a home, and the databases in it, for its owner alone, whatever the umask."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipelines.cli import app

LINE = (
    '{"_label_cost": 0, "_label_probability": 0.5, "_label_Action": 1, "_labelIndex": 0, "EventId": "e", "a": [1, 2], '
    '"p": [0.5, 0.5], "Timestamp": "2026-11-28T09:00:00Z", "c": {"_multi": [{"A": {"x": 1}}, {"A": {"x": 2}}]}}\n'
)


@pytest.mark.parametrize(
    "command",
    [
        ["audit", "verify"],
        ["audit", "repair"],
        ["apply", "--loop", "news", "--history"],
        ["keys", "list"],
        ["top", "--once"],
        ["import", "dsjson", "{log}"],
    ],
    ids=" ".join,
)
def test_a_home_is_its_owners_alone(command: list[str], tmp_path: Path) -> None:
    log, home = tmp_path / "events.dsjson", tmp_path / "new" / "home"
    log.write_text(LINE)
    before = os.umask(0)
    try:
        asked = [*(word.format(log=log) for word in command), "--home", str(home)]
        told = CliRunner().invoke(app, asked)
    finally:
        os.umask(before)
    assert told.exit_code == 0, told.output
    assert home.stat().st_mode & 0o777 == 0o700
    kept = [path for ending in ("*.db", "*.db-*", "*.jsonl", "*.key") for path in home.rglob(ending)]
    assert {path.name: oct(path.stat().st_mode & 0o777) for path in kept} == {path.name: "0o600" for path in kept}
