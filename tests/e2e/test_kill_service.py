"""A service is killed under load, whole or in part: what it acknowledged is on disk, once.

`make soak NAME=kills` goes on longer.
"""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path
from typing import Literal

import pytest

from pipelines.operations.processes import free_port, process, serve_command, wait_until_ready
from pipelines.operations.waiting import wait_until
from pipelines.progress import Progress, silent
from pipelines.settings import load_settings
from tests.e2e.traffic import Load, check_booked_once
from tests.worlds.fleet import processes_of

Whom = Literal["service", "worker", "parent"]


def kill_all(home: Path) -> None:
    """Kill -9 every process that serves `home`: the supervisor and its workers, which have sessions of their own."""
    for pid in processes_of(home):
        os.kill(pid, signal.SIGKILL)


@pytest.mark.connected
@pytest.mark.parametrize(("whom", "kills"), [("service", 3), ("worker", 2), ("parent", 2)])
def test_service_killed_at_random_moments_loses_and_repeats_nothing_it_acknowledged(
    tmp_path: Path, whom: Whom, kills: int
) -> None:
    assert kill_service(tmp_path, kills, seed=7, whom=whom) > kills, "the load never got through; it proves nothing"


@pytest.mark.connected
def test_workers_that_still_start_when_their_supervisor_is_killed_end(tmp_path: Path) -> None:
    settings = load_settings({}, home=str(tmp_path), port=free_port(), workers=2)
    with process("service", serve_command(settings), settings, tmp_path / "service.log") as running:
        wait_until(lambda: len(processes_of(tmp_path)) == 3, "both workers to be there")
        running.kill()
        running.wait()
        wait_until(lambda: not processes_of(tmp_path), "the workers to end", progress=lambda: processes_of(tmp_path))


def kill_service(folder: Path, kills: int, seed: int, *, whom: Whom = "service", progress: Progress = silent) -> int:
    """Kill a service under load so many times, check its books, and return how many decisions it acknowledged.

    Args:
        folder: the home folder.
        kills: how often.
        seed: of the moments.
        whom: all of its processes at once; one of two workers, which the supervisor replaces; or the supervisor, whose
            workers have to end by themselves.
        progress: told of the kills.
    """
    settings = load_settings({}, home=str(folder), port=free_port(), workers=1 if whom == "service" else 2)
    loop = settings.loop_path("news")
    loop.parent.mkdir(parents=True)
    loop.write_text("")
    rng = random.Random(seed)
    loads = [Load(settings.port, f"l{i}") for i in range(4)]
    for load in loads:
        load.start()
    output = folder / "service.log"
    left = kills
    while left:
        with process("service", serve_command(settings), settings, output) as running:
            wait_until_ready(running, settings, output)
            for _ in range(left if whom == "worker" else 1):
                left -= 1
                progress("kills", kills - left, kills)
                time.sleep(rng.uniform(0.05, 0.6))
                if whom == "service":
                    kill_all(folder)
                elif whom == "parent":
                    running.kill()
                else:
                    _kill_a_worker(folder, running.pid, rng)
                    wait_until_ready(running, settings, output)
            if whom != "worker":
                running.wait()
        wait_until(lambda: not processes_of(folder), "all processes of the service to end")
    return check_booked_once(loads, settings.spool_path)


def _kill_a_worker(home: Path, supervisor: int, rng: random.Random) -> None:
    def workers() -> list[int]:
        return [pid for pid in processes_of(home) if pid != supervisor]

    wait_until(lambda: len(workers()) == 2, "both workers to be there")
    killed = rng.choice(sorted(workers()))
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: killed not in workers(), "the killed worker to be gone")
