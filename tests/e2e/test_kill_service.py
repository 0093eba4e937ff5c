"""The service is killed under load: what it acknowledged is on disk, once; `make soak NAME=kills` goes on longer."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from pathlib import Path

import pytest

from pipelines.operations.processes import free_port, process, serve_command, wait_until_ready
from pipelines.settings import load_settings
from tests.e2e.traffic import Load, check_booked_once


def kill_all(home: Path) -> None:
    """Kill -9 every process that serves `home`: the supervisor and its workers, which have sessions of their own."""
    wanted = f"DECISION_HOME={home}".encode()
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            pid = int(folder.name)
            if pid != os.getpid() and wanted in (folder / "environ").read_bytes().split(b"\0"):
                os.kill(pid, signal.SIGKILL)


@pytest.mark.connected
def test_service_killed_at_random_moments_loses_and_repeats_nothing_it_acknowledged(tmp_path: Path) -> None:
    assert kill_service(tmp_path, 6, seed=7) > 6, "the load never got through; the test proves nothing"


def kill_service(folder: Path, kills: int, seed: int) -> int:
    """Kill a service under load so many times, check its books, and return how many decisions it acknowledged."""
    settings = load_settings({}, home=str(folder), port=free_port())
    loop = settings.loop_path("news")
    loop.parent.mkdir(parents=True)
    loop.write_text("")
    rng = random.Random(seed)
    loads = [Load(settings.port, f"l{i}") for i in range(4)]
    for load in loads:
        load.start()
    output = folder / "service.log"
    for _ in range(kills):
        with process("service", serve_command(settings), settings, output) as running:
            wait_until_ready(running, settings, output)
            time.sleep(rng.uniform(0.05, 0.6))
            kill_all(folder)
            running.wait()
    return check_booked_once(loads, settings.spool_path)
