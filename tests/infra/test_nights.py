"""Schedulers' files run commands that exist, and are read without complaint by what reads them."""

from __future__ import annotations

import re
import runpy
import shlex
import shutil
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from typer.main import get_command

from pipelines.cli import app

NIGHTS = Path(__file__).resolve().parents[2] / "infra/nights"
CRONJOB = NIGHTS.parent / "kubernetes/base/nightly.yaml"


def accepted(words: list[str]) -> None:
    """Parse a command line of `decision` without running it; fails where it is none."""
    command = get_command(app)
    name, *arguments = words
    found = command.commands[name]  # pyright: ignore[reportAttributeAccessIssue]
    found.make_context(name, arguments)


def test_every_scheduler_runs_a_command_that_exists() -> None:
    (started,) = re.findall(r"^ExecStart=/usr/bin/env decision (.*)$", _text("decision-nightly.service"), re.MULTILINE)
    accepted(started.split())
    (container,) = yaml.safe_load(CRONJOB.read_text())["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    accepted(container["args"])


@pytest.mark.parametrize("home", ["airflow.operators.bash", "airflow.providers.standard.operators.bash"])
def test_every_task_of_the_dag_runs_a_command_that_exists_for_a_loop_of_its_own(
    monkeypatch: pytest.MonkeyPatch, home: str
) -> None:
    """Airflow is not installed: its two names are stood in for, as Airflow 2 and 3 have them, and the file is run."""
    airflow, bash = ModuleType("airflow"), ModuleType(home)
    made: list[dict[str, Any]] = []
    airflow.__dict__["DAG"] = lambda **_: nullcontext()
    bash.__dict__["BashOperator"] = lambda **given: made.append(given)
    parts = home.split(".")
    above = {".".join(parts[:n]): ModuleType(".".join(parts[:n])) for n in range(2, len(parts))}
    for name, module in (above | {"airflow": airflow, home: bash}).items():
        monkeypatch.setitem(sys.modules, name, module)
    loops = runpy.run_path(str(NIGHTS / "decision_nightly.py"))["LOOPS"]
    assert [task["task_id"] for task in made] == loops != []
    for task in made:
        program, *words = shlex.split(task["bash_command"])
        assert program == "decision"
        accepted(words)
        assert task["task_id"] in words
        assert task["skip_on_exit_code"] == 3
        assert task.keys() == {"task_id", "bash_command", "skip_on_exit_code"}


def test_systemd_finds_nothing_wrong_with_the_units(tmp_path: Path) -> None:
    analyse = shutil.which("systemd-analyze")
    if analyse is None:  # an additional check: commands are held without it
        pytest.skip("systemd-analyze is not installed")
    for file in NIGHTS.glob("decision-nightly.*"):
        (tmp_path / file.name).write_text(file.read_text())
    done = _verified(analyse, tmp_path)
    assert "decision-nightly" not in done, done
    timer = tmp_path / "decision-nightly.timer"
    timer.write_text(timer.read_text().replace("OnCalendar=", "OnCalender="))
    assert "OnCalender" in _verified(analyse, tmp_path)


def _verified(analyse: str, folder: Path) -> str:
    command = [analyse, "verify", "--recursive-errors=no", folder / "decision-nightly.timer"]
    done = subprocess.run([*command, folder / "decision-nightly.service"], capture_output=True, text=True, check=False)
    return done.stderr


def _text(name: str) -> str:
    return (NIGHTS / name).read_text()
