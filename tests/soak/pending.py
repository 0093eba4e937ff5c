"""A million decisions that wait for their outcome: counted while they wait, and settled once when their window is over.

``python -m tests.soak.pending [--decisions N]``. They are on a log and brought in as a follower does. While all of
them wait, the join finds nothing to settle. Then half are reported on, an hour passes, and all are settled in one go,
as after a night that did not run. Each step's seconds and the most memory that the process had until then are printed.
The short form is `tests/faults/test_records.py`.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from decision.records import Decision, Outcome
from pipelines.ingestion.ingest import ingest
from pipelines.interactions.counters import Counters, counters
from pipelines.interactions.join import join
from tests.worlds.lake import START, World, decision, loop_of, outcome

AT_ONCE = 20_000
LOOP = loop_of("[reward]\nwindow_s = 600.0\n")
SPREAD = timedelta(seconds=300)
"""All decisions are made within it."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--decisions", type=int, default=1_000_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = waited(World(Path(folder)), given.decisions)
    print(json.dumps({"name": "pending", "decisions": given.decisions, "steps": found}))


def waited(world: World, n: int) -> dict[str, dict[str, float]]:
    """Return seconds and MB of each step; raises AssertionError where a count is not what it has to be."""
    found: dict[str, dict[str, float]] = {}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        done = work()
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        found[name] = {"seconds": round(time.perf_counter() - began, 2), "peak_mb": round(peak_mb)}
        print(f"{name:<40}{found[name]['seconds']:>10.2f} s{peak_mb:>8.0f} MB", flush=True)
        return done

    def bring_in() -> None:
        ingest(world.log, world.lake, loops={LOOP.name})

    def counted(now: Any) -> Counters:
        seen = counters(world.lake, LOOP, now)
        assert seen.balanced
        return seen

    early, late = START + SPREAD, START + SPREAD + timedelta(hours=1)
    timed("decisions written to the log", lambda: _append(world, n, lambda i: _decided(i, n)))
    timed("decisions brought in", bring_in)
    timed("join, all of them pending", lambda: join(world.lake, LOOP, early))
    timed("join again", lambda: join(world.lake, LOOP, early))
    seen = timed("counters", lambda: counted(early))
    assert (seen.decided, seen.pending, seen.joined, seen.expired) == (n, n, 0, 0)
    timed("outcomes written to the log", lambda: _append(world, n // 2, lambda i: _reported(2 * i, n)))
    timed("outcomes brought in", bring_in)
    timed("join, all of them settled", lambda: join(world.lake, LOOP, late))
    seen = timed("counters afterwards", lambda: counted(late))
    assert (seen.decided, seen.pending, seen.joined, seen.expired) == (n, 0, n // 2, n - n // 2)
    timed("join without work", lambda: join(world.lake, LOOP, late))
    in_full = timed("counters in full", lambda: counters(world.lake, LOOP, late, in_full=True))
    assert (in_full.decided, in_full.joined, in_full.expired, in_full.duplicates_seen) == (n, n // 2, n - n // 2, 0)
    return found


def _decided(number: int, of: int) -> Decision:
    return decision(f"e{number}", ts=START + SPREAD * (number / of), subject_id=f"s{number % 5_000}")


def _reported(number: int, of: int) -> Outcome:
    return outcome(f"e{number}", ts=START + SPREAD * (number / of) + timedelta(seconds=5))


def _append(world: World, n: int, made: Callable[[int], Decision | Outcome]) -> None:
    for first in range(0, n, AT_ONCE):
        world.append(*map(made, range(first, min(first + AT_ONCE, n))))


if __name__ == "__main__":
    main()
