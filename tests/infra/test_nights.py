"""Schedulers' files run commands that exist, and are read without complaint by what reads them."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from pathlib import Path

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
    (flown,) = re.findall(r'bash_command=f"decision (.*?)"', _text("decision_nightly.py"))
    accepted(flown.replace("{name}", "news").split())


def test_the_dag_is_python_that_imports_airflow_alone() -> None:
    tree = ast.parse(_text("decision_nightly.py"))
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported == {"__future__", "datetime", "airflow", "airflow.operators.bash"}
    (operator,) = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and _named(node) == "BashOperator"]
    assert {keyword.arg for keyword in operator.keywords} == {"task_id", "bash_command", "skip_on_exit_code"}


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


def _named(call: ast.Call) -> str:
    return call.func.id if isinstance(call.func, ast.Name) else ""


def _text(name: str) -> str:
    return (NIGHTS / name).read_text()
