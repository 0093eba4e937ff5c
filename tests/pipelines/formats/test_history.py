"""A log of elsewhere as a loop's history: complete, once, and untouched by what happens to the loop's own."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from decision.errors import FieldError
from pipelines.formats.history import take_in
from pipelines.formats.rows import complete
from pipelines.ingestion.ingest import ingest
from pipelines.interactions.counters import counters
from pipelines.interactions.join import join, restate
from pipelines.lake.lake import Lake
from pipelines.operations.erase import erase
from tests.worlds.lake import LATER, LOOP, START, World, decision, loop_of, outcome


def log(*numbers: int, **changes: list[Any]) -> pa.Table:
    columns: dict[str, Any] = {
        "event_id": [f"old-{n}" for n in numbers],
        "ts": [START - timedelta(days=9, seconds=n) for n in numbers],
        "subject_id": [f"s{n % 2}" for n in numbers],
        "context": ['{"country":"fr"}'] * len(numbers),
        "action_ids": [["a", "b"]] * len(numbers),
        "action_index": [n % 2 for n in numbers],
        "pmf": [[0.5, 0.5]] * len(numbers),
        "propensity": [0.5] * len(numbers),
        "reward": [float(n) for n in numbers],
    }
    return complete(columns | changes, len(numbers))


def live(world: World, *numbers: int) -> None:
    world.append(*(decision(f"e{n}", subject_id=f"s{n % 2}") for n in numbers))
    world.append(*(outcome(f"e{n}") for n in numbers))
    ingest(world.log, world.lake)
    join(world.lake, LOOP, LATER)


def rewards(lake: Lake) -> dict[str, float]:
    rows = lake.interactions("shop")
    return dict(zip(rows["event_id"].to_pylist(), rows["reward"].to_pylist(), strict=True))


def test_what_is_taken_in_is_the_loops_own_and_balances(tmp_path: Path) -> None:
    world = World(tmp_path)
    live(world, 0, 1)
    assert take_in(world.lake, LOOP, [log(1, 2, 3)]) == (3, 0)
    assert rewards(world.lake) == {"old-1": 1.0, "old-2": 2.0, "old-3": 3.0, "e0": 1.0, "e1": 1.0}
    for in_full in (False, True):
        counted = counters(world.lake, LOOP, LATER, in_full=in_full)
        assert counted.balanced
        assert (counted.decided, counted.joined, counted.orphan_interactions) == (5, 5, 0)
    join(world.lake, LOOP, LATER)  # nothing is settled a second time
    assert len(rewards(world.lake)) == len(world.lake.interactions("shop")) == 5


@pytest.mark.parametrize("rows_per_commit", [1, 2, 50])
def test_an_event_counts_once_however_often_it_is_imported(tmp_path: Path, rows_per_commit: int) -> None:
    world = World(tmp_path)
    live(world, 0)
    first = take_in(world.lake, LOOP, [log(1, 2), log(3)], rows_per_commit=rows_per_commit)
    again = take_in(world.lake, LOOP, [log(3, 4), log(0, event_id=["e0"])], rows_per_commit=rows_per_commit)
    assert (first, again) == ((3, 0), (1, 2))
    assert sorted(rewards(world.lake)) == ["e0", "old-1", "old-2", "old-3", "old-4"]


def test_an_import_that_was_stopped_between_its_two_commits_is_completed_by_the_next(tmp_path: Path) -> None:
    class Stopped(Exception):
        pass

    class Short(Lake):
        def commit(self, name: Any, *args: Any, **kwargs: Any) -> int:
            if name == "decisions":
                raise Stopped
            return super().commit(name, *args, **kwargs)

    world = World(tmp_path)
    live(world, 0)
    with pytest.raises(Stopped):
        take_in(Short(world.lake.path), LOOP, [log(1, 2)])
    counted = counters(world.lake, LOOP, LATER)
    assert (counted.balanced, counted.decided, counted.orphan_interactions) == (True, 1, 2)
    assert take_in(world.lake, LOOP, [log(1, 2, 3)]) == (1, 2)
    counted = counters(world.lake, LOOP, LATER, in_full=True)
    assert (counted.balanced, counted.decided, counted.orphan_interactions) == (True, 4, 0)


def test_a_row_that_does_not_fit_is_named_and_what_came_before_stays(tmp_path: Path) -> None:
    lake = World(tmp_path).lake
    with pytest.raises(FieldError, match="row 3: propensity"):
        take_in(lake, LOOP, [log(1, 2), log(3, 4, propensity=[0.5, 0.0])], rows_per_commit=2)
    assert sorted(rewards(lake)) == ["old-1", "old-2"]
    assert take_in(lake, LOOP, [log(1, 2), log(3, 4)]) == (2, 2)


def test_restating_settles_the_loops_own_and_leaves_its_history(tmp_path: Path) -> None:
    world = World(tmp_path)
    live(world, 0, 1)
    take_in(world.lake, LOOP, [log(7, 8)])
    other = loop_of('[reward]\nversion = "2"\noutcome = "another"\ndefault = 0.25\n')
    restate(world.lake, other, LATER)
    assert rewards(world.lake) == {"old-7": 7.0, "old-8": 8.0, "e0": 0.25, "e1": 0.25}
    assert counters(world.lake, other, LATER, in_full=True).balanced


def test_a_subject_is_erased_from_history_too(tmp_path: Path) -> None:
    world = World(tmp_path)
    live(world, 0, 1)
    take_in(world.lake, LOOP, [log(4, 5, 6)])
    proof = erase(world.lake, "s0")
    assert (proof.events, proof.remaining) == (3, 0)
    assert sorted(rewards(world.lake)) == ["e1", "old-5"]
    assert counters(world.lake, LOOP, LATER, in_full=True).balanced
    join(world.lake, LOOP, LATER)
    assert sorted(rewards(world.lake)) == ["e1", "old-5"]
