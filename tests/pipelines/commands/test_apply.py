"""`decision apply`: a file or a version of before comes into force, and the history says who changed what."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipelines.settings import load_loop, load_settings
from tests.pipelines import test_cli

run = test_cli.run


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A loop's settings that wait to be applied, on a machine that shares State with others."""
    monkeypatch.setenv("DECISION_STATE", f"sqlite:///{tmp_path / 'shared.db'}")
    path = tmp_path / "news" / "loop.toml"
    path.parent.mkdir()
    return path


def put(run: Any, file: Path, window: int) -> None:
    file.write_text(f"[reward]\nwindow_s = {window}\n")
    assert run("apply", str(file)).status == 0


def test_the_history_needs_no_file_and_tells_what_changed(run: Any, file: Path) -> None:
    put(run, file, 30)
    put(run, file, 60)
    file.unlink()
    rows = run("apply", "--loop", "news", "--history", "--json").result["history"]
    assert [row["version"] for row in rows] == [1, 2]
    assert [row["changed"] for row in rows] == [{}, {"reward.window_s": [30.0, 60.0]}]
    assert [row["text"] for row in rows] == ["[reward]\nwindow_s = 30\n", "[reward]\nwindow_s = 60\n"]
    assert "reward.window_s: 30.0 -> 60.0" in run("apply", "--loop", "news", "--history").out
    assert "nothing was applied" in run("apply", "--loop", "other", "--history").out


def test_settings_of_before_come_into_force_again_by_their_number(run: Any, file: Path, tmp_path: Path) -> None:
    put(run, file, 30)
    put(run, file, 60)
    done = run("apply", "--loop", "news", "--again", "1", "--expected", "2", "--json").result
    assert (done["version"], done["changed"]) == (3, {"reward.window_s": [60.0, 30.0]})
    settings = load_settings(home=str(tmp_path / "home"))
    assert load_loop(settings, "news", {}).reward.window_s == 30.0
    refused = run("apply", "--loop", "news", "--again", "9", "--json")
    assert (refused.status, refused.result["field"]) == (2, "again")
    assert "1, 2, 3" in refused.result["wanted"]


def test_who_comes_too_late_is_told_where_to_look(run: Any, file: Path) -> None:
    put(run, file, 30)
    late = run("apply", str(file), "--expected", "0")
    assert late.status == 1
    assert "expected version 0, found 1" in late.err
    assert "decision apply --loop news --history" in late.err


@pytest.mark.parametrize(
    ("asked", "field", "says"),
    [
        (("nowhere/loop.toml",), "file", "a file that exists, is 'nowhere/loop.toml'"),
        ((".",), "file", "is a folder"),
        (("/dev/null",), "file", "is a pipe or device"),
        (("--loop", "news"), "file", "given, or --again"),
        (("loop.toml", "--loop", "news", "--again", "1"), "file", "not both"),
        ((), "loop", "--loop"),
        (("--history",), "loop", "--loop"),
    ],
)
def test_what_is_missing_is_named(run: Any, file: Path, asked: tuple[str, ...], field: str, says: str) -> None:
    refused = run("apply", *asked, "--json")
    assert (refused.status, refused.result["field"]) == (2, field)
    assert says in refused.result["error"]


def test_on_one_machine_the_history_has_what_pages_changed_and_nothing_is_applied(run: Any) -> None:
    assert run("apply", "--loop", "news", "--history", "--json").result == {"loop": "news", "history": []}
    assert run("apply", "--loop", "news", "--again", "1", "--json").result["field"] == "DECISION_STATE"
