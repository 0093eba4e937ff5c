"""`decision audit` as a shell sees it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pipelines.cli import app
from pipelines.training.train import train
from tests.worlds.credit import Credit
from tests.worlds.panels import NOW

Ran = tuple[int, dict[str, Any]]


class Shell:
    """Runs commands in one home folder."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def __call__(self, *arguments: str) -> Ran:
        import os
        import subprocess
        import sys

        command = [sys.executable, "-m", "pipelines.cli", "audit", *arguments, "--home", str(self.home), "--json"]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        lines = done.stdout.splitlines()
        assert len(lines) == 1, done.stderr
        return done.returncode, json.loads(lines[0])


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    home = tmp_path_factory.mktemp("credit")
    credit = Credit.at(home)
    credit.play(300)
    train(credit.lake, credit.registry, credit.loop, seed=1, now=NOW)
    return Shell(home)


def test_help_teaches_by_example() -> None:
    text = CliRunner().invoke(app, ["audit", "mine", "--help"]).output
    assert "decision audit mine credit" in text


def test_the_workflow_from_the_shell(shell: Shell, tmp_path: Path) -> None:
    keys = []
    for number in range(3):
        status, added = shell("people", "add", f"Auditor {number}", "--role", "auditor")
        assert status == 0
        keys.append(added["key"])
    assert len(set(keys)) == 3
    status, listed = shell("people", "list")
    assert [person["roles"] for person in listed["people"]] == [["auditor"]] * 3
    assert not any(key in json.dumps(listed) for key in keys)
    status, mined = shell("mine", "credit", "--mined", "4", "--probe", "3")
    assert (status, mined["mined"], mined["policy_version"]) == (0, 4, "1")
    assert shell("assign", "credit") == (0, {"closed": 0, "assigned": 4 + mined["probe"], "waiting": 0, "clamped": 0})
    status, seen = shell("status", "credit")
    assert (status, seen["tasks"], seen["judgements"]) == (0, {"open": 4 + mined["probe"]}, 0)
    status, types = shell("types", "credit")
    assert (status, types["types"], types["judgements"], types["upheld"]) == (0, [], 0, 0)
    status, whole = shell("verify")
    assert (status, whole["ok"]) == (0, True)
    exported = tmp_path / "audit.jsonl"
    assert shell("export", "--out", str(exported))[1]["entries"] == whole["entries"]
    assert shell("verify", "--file", str(exported), "--head", f"{whole['entries']}:{whole['head']}")[0] == 0
    lines = exported.read_text().splitlines(keepends=True)
    exported.write_text("".join(lines[:-1]))
    status, cut = shell("verify", "--file", str(exported), "--head", f"{whole['entries']}:{whole['head']}")
    assert (status, cut["ok"], cut["faults"][0]["entry"]) == (1, False, 0)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (["mine", "nowhere"], "loop"),
        (["mine", "credit", "--mined", "100000"], "mined"),
        (["adjudicate", "t0", "--verdict", "upheld", "--note", "x"], "task"),
        (["adjudicate", "t0", "--verdict", "perhaps", "--note", "x"], "verdict"),
        (["people", "add", "X", "--role", "king"], "role"),
        (["people", "revoke", "nobody"], "person"),
        (["replay", "credit", "--quorum", "2"], "quorum"),
        (["verify", "--head", "abc"], "head"),
        (["verify", "--file", "nowhere.jsonl"], "file"),
        (["appeal", "credit", "--reason", "x"], "event_id"),
    ],
)
def test_bad_input_exits_2_and_names_the_field(shell: Shell, arguments: list[str], field: str) -> None:
    status, told = shell(*arguments)
    assert (status, told["field"]) == (2, field)
