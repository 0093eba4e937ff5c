"""`decision nightly` as a scheduler sees it: every loop's night, whatever becomes of the others, and their reports."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pipelines.cli import app
from pipelines.settings import load_settings
from tests.worlds.synthetic import open_parts, play

Nightly = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def nightly(capfd: pytest.CaptureFixture[str]) -> Nightly:
    """Return the command: a home and arguments -> its exit status and the line of JSON."""

    def run(home: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
        done = CliRunner().invoke(app, ["nightly", *arguments, "--home", str(home), "--json"])
        (line,) = capfd.readouterr().out.splitlines()
        return done.exit_code, json.loads(line)

    return run


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a loop that has decisions, one whose settings are wrong, and one without a decision."""
    home = tmp_path_factory.mktemp("nights")
    texts = {"apples": "[training]\nminimum = 5000\n", "broken": "[policy]\nexploration = 'none'\n", "idle": ""}
    for name, text in texts.items():
        path = home / "loops" / name / "loop.toml"
        path.parent.mkdir(parents=True)
        path.write_text(text)
    log, _ = open_parts(load_settings({}, home=str(home)))
    play(log, "apples", 400)
    log.close()
    return home


def test_a_night_that_fails_stops_no_other_one_and_the_status_says_so(nightly: Nightly, home: Path) -> None:
    status, told = nightly(home, "--all")
    assert (status, told["failed"]) == (1, ["broken"])
    assert {name: night.get("verdict") for name, night in told["nights"].items()} == {
        "apples": "skipped",
        "broken": None,
        "idle": "skipped",
    }
    assert "policy.exploration" in told["nights"]["broken"]["error"]
    assert told["nights"]["apples"]["headline"].startswith("Nothing was learned.")
    page = Path(told["nights"]["apples"]["report"]).read_text()
    assert "400 interactions, 5000 are needed" in page
    assert "http" not in page.replace("http://www.w3.org", "")
    text = Path(told["nights"]["idle"]["report"]).with_suffix(".txt").read_text()
    assert "Loop idle has no interactions yet." in text


@pytest.mark.parametrize("arguments", [[], ["apples", "--all"], ["--all", "--run-id", "x"]])
def test_which_nights_are_meant_is_said_exactly_once(nightly: Nightly, tmp_path: Path, arguments: list[str]) -> None:
    assert nightly(tmp_path, *arguments)[0] == 2


def test_an_installation_without_a_loop_is_told_how_to_make_one(nightly: Nightly, tmp_path: Path) -> None:
    status, told = nightly(tmp_path, "--all")
    assert status == 2
    assert "decision init" in told["error"]
