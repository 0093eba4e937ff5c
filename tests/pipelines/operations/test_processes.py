"""Processes that the service starts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.operations.processes import environment, forward_command, let_others_first, serve_command
from pipelines.operations.waiting import wait_until
from pipelines.settings import load_settings
from tests.worlds.fleet import processes_of

STARTS = """
import json, os, subprocess, sys
from pipelines.operations.parent import started_by_us
subprocess.Popen(json.loads(sys.argv[1]), env=os.environ | started_by_us()).wait()
"""
IMPORTS_FOR_EVER = """
import pathlib, signal
pathlib.Path("begun").touch()
while True:
    signal.pause()
"""


def test_what_is_told_to_let_others_first_is_nicer_than_it_was_and_at_its_end_nothing_happens() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        before = os.getpriority(os.PRIO_PROCESS, process.pid)
        let_others_first(process.pid, steps=5)
        assert os.getpriority(os.PRIO_PROCESS, process.pid) == min(before + 5, 19)
        process.communicate(b"\n")
    let_others_first(process.pid, steps=5)


@pytest.mark.parametrize("which", ["service", "forwarder"])
def test_what_is_still_imported_when_its_parent_is_killed_ends(tmp_path: Path, which: str) -> None:
    settings = load_settings({}, home=str(tmp_path))
    command, imported = (serve_command(settings), "bentoml") if which == "service" else (forward_command(), "typer")
    (tmp_path / f"{imported}.py").write_text(IMPORTS_FOR_EVER)
    starts = [sys.executable, "-c", STARTS, json.dumps(command)]
    with subprocess.Popen(starts, cwd=tmp_path, env=environment(settings)) as parent:
        try:
            wait_until((tmp_path / "begun").exists, "the import to begin")
            assert len(processes_of(tmp_path)) == 2
        finally:
            parent.kill()
    try:
        wait_until(lambda: not processes_of(tmp_path), "what it started to end")
    finally:
        for left in processes_of(tmp_path):
            os.kill(left, signal.SIGKILL)
