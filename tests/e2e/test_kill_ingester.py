"""From log to lake while ingesters are killed at random moments: each message there exactly once."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from pipelines.ingestion.ingest import Ingester, ingest
from pipelines.interactions.counters import counters
from pipelines.interactions.join import join
from pipelines.lake.lake import Lake
from pipelines.log.protocol import DECISIONS, OUTCOMES, TOPICS
from pipelines.log.sqlite.log import LocalLog
from pipelines.operations.waiting import wait_until
from pipelines.progress import Progress, counted, silent
from tests.worlds.lake import LATER, LOOP, START, WINDOW, World, decision, outcome
from tests.worlds.s3 import BUCKET, S3

pytestmark = pytest.mark.connected

PREFIX = "e"
CONTEXT = multiprocessing.get_context("forkserver")  # forks a process that has imported all, and started nothing
CONTEXT.set_forkserver_preload(
    ["pipelines.ingestion.ingest", "pipelines.interactions.join", "pipelines.log.sqlite.log"]
)


def follow(log_path: str, lake_url: str, started: str, environment: Mapping[str, str]) -> None:
    """Ingest and join without end, in small batches."""
    os.environ.update(environment)
    log, lake = LocalLog(log_path), Lake(lake_url)
    ingester = Ingester(log, lake, rows_per_commit=30)
    Path(started).touch()
    while True:
        ingester.run()
        join(lake, LOOP, START + 3 * WINDOW, rows_per_commit=30)


class Load:
    """Decisions, repeated decisions, outcomes and rubbish, without end."""

    def __init__(self, world: World) -> None:
        self._world, self._stop = world, threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.decided = set[str]()
        self.repeated = self.rubbish = 0

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        rng, n = random.Random(5), 0
        while not self._stop.wait(0.01):
            for _ in range(5):
                n += 1
                event = f"{PREFIX}{n}"
                records = [decision(event, ts=START + (n % 5) * WINDOW)]
                if rng.random() < 0.2:
                    records.append(decision(f"{PREFIX}{rng.randint(1, n)}"))
                    self.repeated += 1
                self._world.append(*records, outcome(event))
                self.decided.add(event)
            topic = rng.choice(TOPICS)
            self._world.append_raw(topic, [(b"rubbish%d" % n, rng.randbytes(20))])
            self.rubbish += 1


def start(world: World, started: Path) -> BaseProcess:
    reached = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    arguments = (str(world.path), world.lake.path, str(started), reached)
    process = CONTEXT.Process(target=follow, args=arguments, daemon=True)
    process.start()
    return process


def kill(process: BaseProcess) -> None:
    assert process.pid is not None
    assert process.is_alive()
    os.kill(process.pid, signal.SIGKILL)
    process.join(300)


@pytest.mark.parametrize("at_once", [1, 2])
def test_ingester_killed_at_random_moments_keeps_each_message_once(tmp_path: Path, at_once: int) -> None:
    assert kill_ingesters(tmp_path, 8, at_once, seed=at_once, least=40) > 40


def test_ingesters_on_object_storage_that_are_killed_keep_each_message_once(tmp_path: Path, s3: S3) -> None:
    assert kill_ingesters(tmp_path, 4, 2, seed=3, lake=f"s3://{BUCKET}/killed", longest_s=1.5) > 0


def kill_ingesters(
    folder: Path,
    kills: int,
    at_once: int,
    seed: int,
    *,
    lake: str | None = None,
    longest_s: float = 0.4,
    least: int = 0,
    progress: Progress = silent,
) -> int:
    """Kill ingesters under load; check the lake and return what was in it by then.

    Args:
        folder: for the log, and for the lake unless it is elsewhere.
        kills: how many.
        at_once: how many of them work at once.
        seed: of the moments.
        lake: address of the lake.
        longest_s: how long one works at most.
        least: the last are killed once more decisions than these are in the lake: they did get to work.
        progress: told of the kills.
    """
    world, rng = World(folder, lake=lake), random.Random(seed)
    with Load(world) as load:
        rounds = kills // at_once
        for n in counted(range(rounds), progress, "kills", total=rounds):
            started = [folder / f"started-{n}-{i}" for i in range(at_once)]
            processes = [start(world, path) for path in started]
            wait_until(lambda paths=started: all(path.exists() for path in paths), "the ingesters to start")
            if n == rounds - 1:
                wait_until(lambda: len(world.lake.decisions(LOOP.name)) > least, "the ingesters to bring decisions in")
            for process in processes:
                time.sleep(rng.uniform(0.0, longest_s))
                kill(process)
    killed_at = len(world.lake.decisions(LOOP.name))
    ingest(world.log, world.lake)
    join(world.lake, LOOP, LATER)

    found: Counter[tuple[str, int, int]] = Counter()
    for topic in (DECISIONS, OUTCOMES):
        rows = world.lake.table(topic).to_pyarrow_table(columns=["partition", "offset"])
        found.update((topic, *pair) for pair in zip(*(c.to_pylist() for c in rows.columns), strict=True))
    dead = world.lake.dead_letters().select(["topic", "partition", "offset"])
    found.update(zip(*(column.to_pylist() for column in dead.columns), strict=True))
    logged = {(t, p, o) for t in TOPICS for p in range(2) for o in range(world.log.watermarks(t, p)[1])}
    assert set(found.values()) == {1}
    assert set(found) <= logged
    missing = logged - set(found)  # repeated decisions, and nothing else
    assert {topic for topic, _, _ in missing} <= {DECISIONS}
    events = world.lake.decisions(LOOP.name)["event_id"].to_pylist()
    assert sorted(events) == sorted(load.decided)
    balance = counters(world.lake, LOOP, LATER)
    assert balance.duplicates_seen == len(missing) == load.repeated
    assert balance.dead_letters == load.rubbish
    assert balance.balanced
    assert balance.joined + balance.expired == balance.decided == len(load.decided)
    assert world.lake.table("interactions").count() == balance.decided
    return killed_at
