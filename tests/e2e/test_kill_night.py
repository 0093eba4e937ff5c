"""Nights and followers are killed at random moments: each version is registered once, each verdict explains one move,
and every message is in the lake once.

`make soak NAME=kills` goes on longer.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import threading
import time
from collections import Counter
from datetime import timedelta
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from decision.draw import draw, seed_of
from pipelines.ingestion.ingest import ingest
from pipelines.interactions.counters import counters
from pipelines.interactions.join import join
from pipelines.lake.lake import Lake
from pipelines.log.protocol import DECISIONS, OUTCOMES
from pipelines.log.sqlite.log import LocalLog
from pipelines.nightly import nightly
from pipelines.operations.follow import Follower
from pipelines.operations.installation import Installation
from pipelines.operations.waiting import wait_until
from pipelines.progress import Progress, counted, silent
from pipelines.registry.registry import Registry
from pipelines.registry.stated import charge_key
from pipelines.settings import LoopSettings, load_settings
from pipelines.state.state import State
from tests.worlds.accounts import broken_links
from tests.worlds.synthetic import LATER, new_loop, new_settings, open_parts, play

pytestmark = pytest.mark.connected

LOOP = "shop"
MOST = 40
"""Decisions between two kills."""
_LEASE_S = 0.5
CONTEXT = multiprocessing.get_context("forkserver")  # forks a process that has imported all, and started nothing
CONTEXT.set_forkserver_preload(["pipelines.nightly", "pipelines.operations.follow", "mlflow"])


def run_night(home: str, started: str) -> None:
    """Go on with the night, or begin one."""
    settings = load_settings({}, home=home)
    with Installation(settings) as parts:
        loop = parts.loop(LOOP)
        Path(started).touch()
        nightly(settings, parts.log, parts.lake, parts.registry, loop, now=LATER)


def run_follower(home: str, started: str) -> None:
    """Follow without end."""
    settings = load_settings({}, home=home)
    with (
        Installation(settings) as parts,
        State(settings.state_url) as state,
        Follower(parts, state, lease_s=_LEASE_S) as follower,
    ):
        Path(started).touch()
        follower.run(0.01, threading.Event())


def start(work: object, home: Path, number: int) -> BaseProcess:
    started = home / f"started-{number}"
    process = CONTEXT.Process(target=work, args=(str(home), str(started)), daemon=True)  # type: ignore[arg-type]
    process.start()
    wait_until(lambda: started.exists() or not process.is_alive(), "the process to begin")
    assert started.exists(), "it ended before it began"
    return process


def kill(process: BaseProcess) -> bool:
    """Kill the process and return whether it was still at work."""
    alive = process.is_alive()
    if alive and process.pid is not None:
        os.kill(process.pid, signal.SIGKILL)
    process.join(300)
    return alive


def test_nights_killed_at_random_moments_register_each_version_once_and_lose_nothing(tmp_path: Path) -> None:
    assert kill_nights(tmp_path, 3, seed=3) > 0


def test_followers_killed_at_random_moments_keep_each_message_once(tmp_path: Path) -> None:
    assert kill_followers(tmp_path, 3, seed=3) > 0


def kill_nights(folder: Path, kills: int, seed: int, progress: Progress = silent) -> int:
    """Kill nights so often, check what came of them, and return how many decisions were brought in.

    Every fourth is left alone. A moment is any of those that the last of these took, so that each step is met, however
    slow the machine.
    """
    settings = new_settings(folder)
    loop = new_loop(settings, LOOP)
    log, lake = open_parts(settings)
    rng, number, done, longest_s = random.Random(seed), 0, 0, 0.0
    play(log, LOOP, 400)
    played = 400
    while done < kills:
        process, begun = start(run_night, folder, number), time.monotonic()
        whole = number % 4 == 0
        process.join(None if whole else rng.uniform(0.0, longest_s))
        killed = kill(process)
        done += killed
        progress("kills", done, kills)
        number += 1
        if not killed:  # it came to its end before: the next one has something to do
            assert process.exitcode == 0
            longest_s = time.monotonic() - begun if whole else longest_s
            play(log, LOOP, MOST, first=played)
            played += MOST
    registry = Registry(settings)
    for _ in range(2):  # the one that was cut short, and one of its own
        run = nightly(settings, log, lake, registry, loop, now=LATER)
        assert run.status == "done"
        play(log, LOOP, MOST, first=played)
        played += MOST
    check_lake(log, lake, loop, played)
    keys = Counter(version.tags["key"] for version in registry.versions(LOOP))
    assert set(keys.values()) == {1}
    with State(settings.state_url) as state:
        assert broken_links(state.history(charge_key(LOOP)), registry.verdicts(LOOP)) == []
    log.close()
    return played


def kill_followers(folder: Path, kills: int, seed: int, progress: Progress = silent) -> int:
    """Kill followers so often while decisions come in, check the lake, and return how many decisions are there."""
    settings = new_settings(folder)
    loop = new_loop(settings, LOOP)
    log, lake = open_parts(settings)
    rng, played = random.Random(seed), 0
    for number in counted(range(kills), progress, "kills", total=kills):
        process = start(run_follower, folder, number)
        until = time.monotonic() + rng.uniform(0.0, 2.0)
        while time.monotonic() < until:
            play(log, LOOP, MOST, first=played)
            played += MOST
        if number == kills - 1:  # they do bring something in, and do not only wait for each other's leases
            wait_until(lambda: lake.table(DECISIONS).count() > 0, "the follower to bring decisions in")
        assert kill(process), "the follower ended by itself"
    check_lake(log, lake, loop, played)
    log.close()
    return played


def check_lake(log: LocalLog, lake: Lake, loop: LoopSettings, played: int) -> None:
    """Bring in the rest and check that every message is there once, every draw repeats and the counts add up."""
    later = LATER + timedelta(seconds=played)  # decisions are a second apart
    ingest(log, lake)
    join(lake, loop, later)
    for topic in (DECISIONS, OUTCOMES):
        rows = lake.table(topic).to_pyarrow_table(columns=["partition", "offset"]).to_pylist()
        found = Counter((row["partition"], row["offset"]) for row in rows)
        assert set(found.values()) == {1}
        assert set(found) == {(p, o) for p in range(log.partitions(topic)) for o in range(log.watermarks(topic, p)[1])}
    decisions = lake.decisions(LOOP).select(["event_id", "pmf", "seed", "action_index"]).to_pylist()
    assert sorted(row["event_id"] for row in decisions) == sorted(f"{LOOP}-{n}" for n in range(played))
    assert all(row["seed"] == seed_of(LOOP, row["event_id"]) for row in decisions)
    assert all(draw(row["pmf"], row["seed"]) == row["action_index"] for row in decisions)
    balance = counters(lake, loop, later)
    assert balance.balanced
    assert (balance.pending, balance.joined + balance.expired) == (0, played)
