from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import nullcontext
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow.compute as pc
import pytest

from pipelines.ingestion.ingest import Ingester, ingest
from pipelines.interactions.counters import Counters, counters
from pipelines.interactions.join import join, restate
from pipelines.lake.lake import Lake
from pipelines.operations.erase import erase
from tests.worlds.lake import LATER, LOOP, START, WINDOW, World, decision, outcome

LOOKS = 50


@pytest.fixture(params=["short", "long"])
def history(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A history that is counted row by row, or by the statistics of its files."""
    if request.param == "long":
        monkeypatch.setattr("pipelines.interactions.counters.ROW_BY_ROW", -1)
    return str(request.param)


def figures(counted: Counters) -> tuple[int, int, int, int, dict[str, int]]:
    return counted.decided, counted.joined, counted.pending, counted.expired, counted.dropped


def test_an_empty_lake_has_counters_of_zero(tmp_path: Path) -> None:
    counted = counters(World(tmp_path).lake, LOOP, LATER)
    assert counted.balanced
    assert counted.decided == counted.outcomes == counted.duplicates_seen == counted.orphan_interactions == 0


@pytest.mark.usefixtures("history")
def test_the_identity_holds_fifty_times_while_everything_runs_at_once(tmp_path: Path) -> None:
    seen = list[Counters]()
    for number in count():
        (tmp_path / str(number)).mkdir()
        seen += seen_beside_everything(World(tmp_path / str(number)))
        if len(seen) >= LOOKS:
            break
    assert all(counted.balanced for counted in seen), [counted for counted in seen if not counted.balanced]


def seen_beside_everything(world: World) -> list[Counters]:
    """Return what was counted again and again while decisions arrive and are joined, restated and erased."""
    now, errors, numbers = START + 20 * WINDOW, list[BaseException](), count()

    def append() -> None:
        for i in (next(numbers) for _ in range(4)):
            when = START + (i % 40) * WINDOW
            world.append(decision(f"e{i}", ts=when, subject_id=f"s{i % 5}", deferred=i % 3 == 0))
            world.append(outcome(f"e{i - 3}", after=float(i % 900)))

    ingester = Ingester(world.log, world.lake, rows_per_commit=10)
    steps: list[tuple[int, Callable[[], object]]] = [
        (20, append),
        (8, ingester.run),
        (8, lambda: join(world.lake, LOOP, now, rows_per_commit=5)),
        (3, lambda: restate(world.lake, LOOP, now)),
        (3, lambda: erase(world.lake, "s1")),
        (3, lambda: erase(world.lake, "s2", vacuum=False)),
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
    ingester.run()
    for subject in ("s1", "s2"):
        erase(world.lake, subject)
    join(world.lake, LOOP, LATER + timedelta(days=900))
    final = counters(world.lake, LOOP, LATER)
    assert final.balanced
    assert final.pending == final.orphan_interactions == 0
    assert set(world.lake.decisions("shop")["subject_id"].to_pylist()) == {"s0", "s3", "s4"}
    return seen


class _Stopped(BaseException):
    """What a kill is to the process it hits."""


def cut_short(lake: Lake, commits: int) -> Lake:
    """Return the lake for a writer that is killed before it commits once more than `commits` times."""
    left = [commits]

    class Killed(Lake):
        def _commit(self, *args: Any, **kwargs: Any) -> int:
            if not left[0]:
                raise _Stopped
            left[0] -= 1
            return super()._commit(*args, **kwargs)

    return Killed(lake.path)


@pytest.mark.usefixtures("history")
@pytest.mark.parametrize("joined_after", range(4))
@pytest.mark.parametrize("stopped_after", range(5))
def test_an_erasure_that_is_stopped_anywhere_leaves_the_identity_whole(
    tmp_path: Path, stopped_after: int, joined_after: int
) -> None:
    world = World(tmp_path)
    for i in range(12):
        world.append(decision(f"e{i}", subject_id="ann" if i % 3 == 0 else "bob"), outcome(f"e{i}"))
    ingest(world.log, world.lake)
    join(world.lake, LOOP, LATER)
    commits = [0]

    class Beside(Lake):
        """A join settles what it finds between two commits of the erasure."""

        def _commit(self, *args: Any, **kwargs: Any) -> int:
            if commits[0] == stopped_after:
                raise _Stopped
            version = super()._commit(*args, **kwargs)
            commits[0] += 1
            if commits[0] == joined_after:
                join(world.lake, LOOP, LATER)
            assert counters(world.lake, LOOP, LATER).balanced
            return version

    with pytest.raises(_Stopped) if stopped_after < 4 else nullcontext():
        erase(Beside(world.lake.path), "ann", vacuum=False)
    counted = counters(world.lake, LOOP, LATER)
    assert counted.balanced
    assert counted.decided == (12 if stopped_after < 2 else 8)
    assert counted.orphan_interactions == (4 if (stopped_after, joined_after) == (2, 1) else 0)
    erase(world.lake, "ann")
    join(world.lake, LOOP, LATER)
    assert figures(counters(world.lake, LOOP, LATER)) == (8, 8, 0, 0, {})
    assert counters(world.lake, LOOP, LATER).orphan_interactions == 0


def test_the_first_of_two_erasures_to_end_does_not_hide_that_the_other_is_under_way(tmp_path: Path) -> None:
    world = World(tmp_path)
    for i in range(12):
        world.append(decision(f"e{i}", subject_id=f"s{i % 3}"), outcome(f"e{i}"))
    ingest(world.log, world.lake)
    join(world.lake, LOOP, LATER)
    with pytest.raises(_Stopped):
        erase(cut_short(world.lake, 1), "s0", vacuum=False)
    join(world.lake, LOOP, LATER)
    world.lake.delete("decisions", pc.field("subject_id") == "s0")  # where the stopped one would have gone on
    erase(world.lake, "s1", vacuum=False)
    counted = counters(world.lake, LOOP, LATER)
    assert counted.balanced
    assert (counted.decided, counted.joined, counted.orphan_interactions) == (4, 4, 4)


def test_a_decision_that_was_lost_breaks_the_identity(tmp_path: Path, history: str) -> None:
    world = World(tmp_path)
    for i in range(6):
        world.append(decision(f"e{i}"), outcome(f"e{i}"))
    ingest(world.log, world.lake)
    join(world.lake, LOOP, LATER)
    world.lake.delete("interactions", pc.field("event_id") == "e3")
    counted = counters(world.lake, LOOP, LATER)
    assert not counted.balanced
    assert not counters(world.lake, LOOP, LATER, in_full=True).balanced
    world.lake.delete("decisions", pc.field("event_id") == "e5")
    # One lost and one left over: as many rows as there should be, so only looking at them tells.
    assert counters(world.lake, LOOP, LATER, in_full=history == "long").orphan_interactions == 1


def counted_both_ways(world: World, now: datetime, monkeypatch: pytest.MonkeyPatch) -> None:
    full = counters(world.lake, LOOP, now, in_full=True)
    monkeypatch.setattr("pipelines.interactions.counters.ROW_BY_ROW", -1)
    quick = counters(world.lake, LOOP, now)
    assert quick.late_outcomes is quick.orphan_outcomes is None
    unknown = {"late_outcomes": None, "orphan_outcomes": None, "late_conflicts": None, "doubtful": {}}
    assert msgspec.structs.replace(full, **unknown) == quick
    assert quick.balanced


@pytest.mark.parametrize("seed", range(6))
def test_statistics_count_what_the_rows_count(tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(seed)
    world, number = World(tmp_path), 0
    for _ in range(12):
        step = rng.choice(["append", "append", "join", "compact", "erase", "restate"])
        now = START + int(rng.integers(1, 40)) * WINDOW
        if step == "append":
            for i in range(number, number + 7):
                when = START + int(rng.integers(40)) * WINDOW
                world.append(decision(f"e{i}", ts=when, subject_id=f"s{i % 5}", deferred=i % 3 == 0))
                world.append(outcome(f"e{int(rng.integers(number + 7))}", after=float(rng.integers(900))))
            number += 7
            ingest(world.log, world.lake)
        elif step == "join":
            join(world.lake, LOOP, now, rows_per_commit=3)
        elif step == "compact":
            for name in ("decisions", "interactions"):
                world.lake.compact(name)
        elif step == "erase":
            erase(world.lake, f"s{int(rng.integers(5))}")
        else:
            restate(world.lake, LOOP, now)
        with monkeypatch.context() as patched:
            counted_both_ways(world, now, patched)


def test_a_long_history_is_counted_without_reading_what_is_settled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The settled rows' files are gone from the disk, and the counters do not miss them."""
    world = World(tmp_path)
    for i in range(60):
        world.append(decision(f"e{i}", deferred=i % 4 == 0), outcome(f"e{i - i % 2}"))
    ingest(world.log, world.lake)
    join(world.lake, LOOP, LATER)
    want = counters(world.lake, LOOP, LATER)
    for name in ("decisions", "interactions", "outcomes"):
        for path in (tmp_path / "lake" / name).glob("**/*.parquet"):
            path.unlink()
    monkeypatch.setattr("pipelines.interactions.counters.ROW_BY_ROW", -1)
    assert figures(counters(world.lake, LOOP, LATER)) == figures(want)
