from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from pipelines.ingestion.ingest import Ingester
from pipelines.interactions.counters import counters
from pipelines.interactions.join import join, restate
from pipelines.operations.erase import erase
from tests.worlds.lake import LATER, LOOP, START, WINDOW, World, decision, outcome


def test_an_empty_lake_has_counters_of_zero(tmp_path: Path) -> None:
    counted = counters(World(tmp_path).lake, LOOP, LATER)
    assert counted.balanced
    assert counted.decided == counted.outcomes == counted.duplicates_seen == 0


def test_the_identity_holds_while_everything_runs_at_once(tmp_path: Path) -> None:
    world = World(tmp_path)
    now, errors, numbers = START + 20 * WINDOW, list[BaseException](), iter(range(10**6))

    def append() -> None:
        for _ in range(4):
            i = next(numbers)
            when = START + (i % 40) * WINDOW
            world.append(decision(f"e{i}", ts=when, subject_id=f"s{i % 5}", deferred=i % 3 == 0))
            world.append(outcome(f"e{i - 3}", after=float(i % 900)))

    ingester = Ingester(world.log, world.lake, rows_per_commit=10)
    steps: list[tuple[int, Callable[[], object]]] = [
        (20, append),
        (8, ingester.run),
        (8, lambda: join(world.lake, LOOP, now, rows_per_commit=5)),
        (3, lambda: restate(world.lake, LOOP, now)),
        (3, lambda: erase(world.lake, "s1", vacuum=False)),
    ]

    def repeated(times: int, step: Callable[[], object]) -> None:
        try:
            for _ in range(times):
                step()
        except BaseException as error:
            errors.append(error)
            raise

    append()
    threads = [threading.Thread(target=repeated, args=step) for step in steps]
    for thread in threads:
        thread.start()
    seen = [counters(world.lake, LOOP, now)]
    while any(thread.is_alive() for thread in threads):
        seen.append(counters(world.lake, LOOP, now))
    assert not errors
    assert all(counted.balanced for counted in seen), [counted for counted in seen if not counted.balanced]
    ingester.run()
    erase(world.lake, "s1", vacuum=False)
    join(world.lake, LOOP, LATER + timedelta(days=900))
    final = counters(world.lake, LOOP, LATER)
    assert final.balanced
    assert final.pending == 0
    assert set(world.lake.decisions("shop")["subject_id"].to_pylist()) == {"s0", "s2", "s3", "s4"}
