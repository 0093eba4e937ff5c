"""Reads beside a history of one length and of eight times that: none may grow with it.

Counters, the latest interactions, a join of 5,000 new decisions and one with nothing to do, by the processor time of
this process; and a night's join against four of a quarter, in commits of a thousand, which may not cost more together
than apart. On object storage, what a join without work asks, after few commits and after many.
``python -m tests.bench.history``; ``QUICK=1`` for a tenth of it, which is too short to tell. The status is 1 where
something grows.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipelines.interactions.counters import counters
from pipelines.interactions.join import join
from pipelines.interactions.window import join_mark
from pipelines.lake.lake import Lake
from pipelines.lake.schemas import DECISIONS, SCHEMAS
from pipelines.settings import parse_loop
from tests.worlds.logged import START_US, rows_of
from tests.worlds.s3 import BUCKET, S3

QUICK = os.environ.get("QUICK") == "1"
SHORT, LONG = (10_000, 80_000) if QUICK else (100_000, 800_000)
NEW, NIGHT, LATEST = (500, 8_000, 2_000) if QUICK else (5_000, 100_000, 20_000)
ROUNDS, AT_ONCE, PARTITIONS = 5, 20_000, 2
COMMITS = 12 if QUICK else 60
MOST, MOST_ASKED = 1.3, 3
"""Ratios of the longer history to the shorter one, and requests of a join without work for each table."""
LOOP = parse_loop("", "shop", {})
STEP_US = 1_000_000
CONTEXTS = [{"age": age} for age in range(50)]
ACTIONS = [{"price": price} for price in range(3)]


def at(decisions: int) -> datetime:
    """Return a time at which so many decisions of the log are past their reward window, and no more."""
    return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(microseconds=decisions * STEP_US, seconds=LOOP.reward.window_s)


def rows(first: int, n: int, partition: int) -> pa.Table:
    rng = np.random.default_rng([first, partition])
    return rows_of(
        LOOP.name,
        ts=START_US + (first + np.arange(n)) * STEP_US,
        reward=(rng.random(n) < 0.05).astype(float),
        contexts=CONTEXTS,
        context=rng.integers(len(CONTEXTS), size=n),
        actions=ACTIONS,
        chosen=rng.integers(len(ACTIONS), size=n),
        first=first,
        partition=partition,
    )


def filled(folder: Path, decisions: int) -> Lake:
    """Return a lake whose first decisions are settled, `NEW` and those of the rounds are not; merged, as a night leaves
    it."""
    lake = Lake(folder)
    each = (decisions + 2 * NEW * (ROUNDS + 1)) // PARTITIONS
    for name, upto in (("decisions", each), ("interactions", decisions // PARTITIONS)):
        seen, marks, files = lake.table(name), dict[str, int](), []
        for partition in range(PARTITIONS):
            for first in range(0, upto, AT_ONCE):
                found = rows(first, min(AT_ONCE, upto - first), partition)
                files += lake.write(name, found if name == "interactions" else found.select(DECISIONS.names))
            marks[f"decisions/{partition}" if name == "decisions" else join_mark(LOOP.name, partition)] = upto
        lake.commit(name, seen, files, marks)
    lake.commit("outcomes", lake.table("outcomes"), [], {f"outcomes/{p}": 0 for p in range(PARTITIONS)})
    for name in ("decisions", "interactions"):
        lake.compact(name)
    return lake


def cost(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def measured(decisions: int, folder: Path) -> dict[str, list[float]]:
    """Return the seconds of each read, by round."""
    lake, found = filled(folder, decisions), dict[str, list[float]]()
    settled = decisions // PARTITIONS
    for number in range(ROUNDS):
        settled += NEW // PARTITIONS
        now = at(settled)
        works: dict[str, Callable[[], object]] = {
            "join": partial(join, lake, LOOP, now),
            "idle join": partial(join, lake, LOOP, now),
            "counters": partial(counters, lake, LOOP, now),
            "latest": partial(lake.interactions, LOOP.name, latest=LATEST),
        }
        for name, work in works.items():
            found.setdefault(name, []).append(cost(work))
        assert number or counters(lake, LOOP, now).balanced
    return found


def night(folder: Path, decisions: int) -> float:
    """Return the seconds of a join of so many decisions, 1,000 a commit."""
    lake = Lake(folder)
    each = decisions // PARTITIONS
    files = [
        file for p in range(PARTITIONS) for file in lake.write("decisions", rows(0, each, p).select(DECISIONS.names))
    ]
    lake.commit("decisions", lake.table("decisions"), files, {f"decisions/{p}": each for p in range(PARTITIONS)})
    return cost(lambda: join(lake, LOOP, at(each), rows_per_commit=1_000))


def asked_when_idle(server: S3, commits: int) -> float:
    """Return how many requests a table gets by a join without work, after so many commits to it."""
    lake = Lake(f"s3://{BUCKET}/after-{commits}")
    for first in range(commits):
        files = lake.write("decisions", rows(first, 1, 0).select(DECISIONS.names))
        lake.commit("decisions", lake.table("decisions"), files, {"decisions/0": first + 1})
        join(lake, LOOP, at(first + 1))
    server.asked()
    join(lake, LOOP, at(commits))
    return len(server.asked()) / len(SCHEMAS)


def asked() -> dict[str, float]:
    with S3() as server:
        os.environ.update(server.environment)
        few, many = (asked_when_idle(server, commits) for commits in (2, COMMITS))
    return {"idle join on S3, requests a table": many, "idle join on S3: many commits of few": many / few}


def main() -> int:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        short, long = measured(SHORT, folder / "short"), measured(LONG, folder / "long")
        whole, quarters = night(folder / "whole", NIGHT), [night(folder / f"q{i}", NIGHT // 4) for i in range(4)]
    growth = {
        f"{what}: long of short": statistics.median(long[what]) / statistics.median(short[what]) for what in short
    }
    growth["night of its quarters"] = whole / sum(quarters)
    growth |= asked()
    detail = {f"{what}, seconds": [statistics.median(short[what]), statistics.median(long[what])] for what in short}
    detail["night, seconds"] = [sum(quarters), whole]
    print(
        f"of a history of {LONG:,} decisions, in times of one of {SHORT:,}; a night of {NIGHT:,} of four of a quarter:"
    )
    for what, ratio in growth.items():
        print(f"  {what:38} {ratio:.2f}")
    print(json.dumps({"name": "history", "ratios": growth, "detail": detail}))
    grown = {what for what, ratio in growth.items() if ratio > (MOST_ASKED if "requests" in what else MOST)}
    return int(bool(grown) and not QUICK)


if __name__ == "__main__":
    sys.exit(main())
