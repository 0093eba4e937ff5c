from __future__ import annotations

import threading
import time
from datetime import timedelta
from pathlib import Path

from pipelines.counters import counters
from pipelines.erase import erase
from pipelines.ingest import Ingester
from pipelines.join import join, restate
from tests.pipelines.lake_world import LATER, LOOP, START, WINDOW, World, decision, outcome


def test_an_empty_lake_has_counters_of_zero(tmp_path: Path) -> None:
    counted = counters(World(tmp_path).lake, LOOP, LATER)
    assert counted.balanced
    assert counted.decided == counted.outcomes == counted.duplicates_seen == 0


def test_the_identity_holds_while_everything_runs_at_once(tmp_path: Path) -> None:
    world = World(tmp_path)
    stop, errors = threading.Event(), list[BaseException]()

    def looped(step: object) -> None:
        try:
            while not stop.is_set():
                step()  # type: ignore[operator]
        except BaseException as error:
            errors.append(error)
            raise

    numbers = iter(range(10**6))

    def append() -> None:
        time.sleep(0.01)
        i = next(numbers)
        world.append(decision(f"e{i}", ts=START + (i % 40) * WINDOW, subject_id=f"s{i % 5}", deferred=i % 3 == 0))
        world.append(outcome(f"e{i - 3}", after=float(i % 900)))

    ingester = Ingester(world.log, world.lake, rows_per_commit=50)
    steps = [
        append,
        ingester.run,
        lambda: join(world.lake, LOOP, START + 20 * WINDOW, rows_per_commit=20),
        lambda: restate(world.lake, LOOP, START + 20 * WINDOW),
        lambda: erase(world.lake, "s1", vacuum=False),
    ]
    threads = [threading.Thread(target=looped, args=(step,)) for step in steps]
    for thread in threads:
        thread.start()
    seen = [counters(world.lake, LOOP, START + 20 * WINDOW) for _ in range(12)]
    stop.set()
    for thread in threads:
        thread.join()
    assert not errors
    assert all(counted.balanced for counted in seen), [counted for counted in seen if not counted.balanced]
    assert seen[-1].decided > 0
    erase(world.lake, "s1", vacuum=False)
    ingester.run()
    erase(world.lake, "s1", vacuum=False)
    join(world.lake, LOOP, LATER + timedelta(days=900))
    final = counters(world.lake, LOOP, LATER)
    assert final.balanced
    assert final.pending == 0
    assert set(world.lake.decisions("shop")["subject_id"].to_pylist()) <= {"s0", "s2", "s3", "s4"}
