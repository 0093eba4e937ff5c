from __future__ import annotations

import io

import pytest
from rich.console import Console

from pipelines.commands import progress
from pipelines.commands.progress import rows_bar


def test_a_bar_with_a_rate_appears_in_a_terminal_once_patience_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(progress, "console", Console(file=out, force_terminal=True, width=120))
    now = 0.0
    with rows_bar(clock=lambda: now, patience=3.0) as told:
        told("survey", 0, 500)
        told("survey", 100, 500)
        assert not out.getvalue()
        now = 3.5
        told("survey", 200, 500)
        told("survey", 300, 500)
    shown = out.getvalue()
    assert "survey" in shown
    assert "300/500" in shown
    assert "decisions/s" in shown


def test_elsewhere_every_part_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(progress, "console", Console(file=out, force_terminal=False, width=120))
    with rows_bar() as told:
        for what, done, of in (("extent", 0, 0), ("extent", 9, 0), ("survey", 0, 9), ("survey", 9, 9)):
            told(what, done, of)
    assert out.getvalue().splitlines() == ["  extent", "  survey of 9 decisions"]
