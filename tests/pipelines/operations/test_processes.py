"""Processes that the service starts."""

from __future__ import annotations

import os
import subprocess
import sys

from pipelines.operations.processes import let_others_first


def test_what_is_told_to_let_others_first_is_nicer_than_it_was_and_at_its_end_nothing_happens() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        before = os.getpriority(os.PRIO_PROCESS, process.pid)
        let_others_first(process.pid, steps=5)
        assert os.getpriority(os.PRIO_PROCESS, process.pid) == min(before + 5, 19)
        process.communicate(b"\n")
    let_others_first(process.pid, steps=5)
