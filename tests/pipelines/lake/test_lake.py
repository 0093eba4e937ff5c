from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from decision.errors import FieldError
from pipelines.ingestion.ingest import ingest
from pipelines.interactions.join import join
from pipelines.lake.lake import ConflictError, Lake
from pipelines.lake.tables import mark_of
from tests.contracts.lake import append, held
from tests.worlds.behind import about_to_lose_files
from tests.worlds.lake import LATER, LOOP, START, World, decision, loop_of, outcome


def test_an_address_works_like_a_folder(tmp_path: Path) -> None:
    folder, address = Lake(tmp_path), Lake(tmp_path.as_uri())
    append(folder, 0)
    append(address, 1)
    assert held(folder) == held(address) == [0, 1]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    world = World(tmp_path_factory.mktemp("lake"))
    hours = [3, 1, 4, 1, 5, 9, 2, 6]
    world.append(*(decision(f"e{i}", ts=START + timedelta(hours=h), deferred=h == 9) for i, h in enumerate(hours)))
    world.append(outcome("e0", after=10_805))
    ingest(world.log, world.lake)
    join(world.lake, LOOP, LATER)
    return world


def ids(rows: pa.Table) -> list[str]:
    return rows["event_id"].to_pylist()


def test_rows_come_by_time_whatever_the_partition(world: World) -> None:
    assert ids(world.lake.decisions("shop")) == ["e1", "e3", "e6", "e0", "e2", "e4", "e7", "e5"]
    assert ids(world.lake.interactions("shop")) == ["e1", "e3", "e6", "e0", "e2", "e4", "e7"]
    assert ids(world.lake.decisions("news")) == []


def test_a_range_of_time_is_half_open(world: World) -> None:
    since, until = START + timedelta(hours=2), START + timedelta(hours=5)
    assert ids(world.lake.decisions("shop", since=since, until=until)) == ["e6", "e0", "e2"]
    assert ids(world.lake.interactions("shop", since=since, until=until)) == ["e6", "e0", "e2"]
    assert ids(world.lake.outcomes("shop", since=until)) == []


@pytest.mark.parametrize("latest", [1, 2, 6, 7, 100])
def test_the_latest_are_the_last_of_all(world: World, latest: int) -> None:
    everything = world.lake.interactions("shop")
    assert world.lake.interactions("shop", latest=latest).equals(everything.slice(max(0, 7 - latest)))


def test_ties_at_the_cut_of_the_latest_are_broken_as_in_the_whole(world: World) -> None:
    until = START + timedelta(hours=2)
    assert ids(world.lake.interactions("shop", until=until, latest=1)) == ["e3"]


def test_a_version_that_is_not_there_is_named(world: World) -> None:
    assert len(world.lake.decisions("shop", version=0)) == 0
    for name in ("decisions", "interactions"):
        with pytest.raises(FieldError, match=r"version: must be a kept version of the table '.*', is 999"):
            world.lake.table(name, 999)
    with pytest.raises(FieldError, match="latest"):
        world.lake.interactions("shop", latest=0)


def test_compacted_and_rewritten_files_can_be_filtered_by_text(world: World) -> None:
    world.lake.compact("decisions")
    assert world.lake.delete("decisions", pc.field("event_id") == "e7") == 1
    rows = world.lake.table("decisions").to_pyarrow_dataset()
    assert rows.count_rows(filter=pc.field("event_id").isin(["e5", "e7"]) & (pc.field("subject_id") == "ann")) == 1


@pytest.mark.parametrize("seed", range(4))
def test_the_latest_of_many_files_are_the_last_of_all(tmp_path: Path, seed: int) -> None:
    """Files that overlap in time, lie far apart, or hold other loops' rows and dropped ones."""
    rng, world = np.random.default_rng(seed), World(tmp_path)
    for part in range(10):
        start = START + timedelta(hours=float(rng.integers(0, 500)))
        spread = float(rng.choice([0.0, 60.0, 90_000.0]))
        names = [f"e{part}-{i}" for i in range(int(rng.integers(1, 30)))]
        world.append(
            *(
                decision(
                    name,
                    ts=start + timedelta(seconds=spread * float(rng.random())),
                    loop=str(rng.choice(["shop", "shop", "news"])),
                    deferred=bool(rng.random() < 0.3),
                )
                for name in names
            )
        )
        ingest(world.log, world.lake)
        for loop in (LOOP, loop_of("", "news")):
            join(world.lake, loop, LATER)
        if rng.random() < 0.3:
            world.lake.compact("interactions")
    for read in (world.lake.interactions, world.lake.decisions):
        every = read("shop")
        for latest in (1, 2, 17, len(every) - 1, len(every), 500):
            assert read("shop", latest=latest).equals(every.slice(max(0, len(every) - latest)))
            until = every["ts"][len(every) // 2].as_py()
            earlier = every.filter(pc.field("ts") < until)
            assert read("shop", until=until, latest=latest).equals(earlier.slice(max(0, len(earlier) - latest)))


def test_a_table_is_nobody_elses_while_it_is_held(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    first, second = lake.table("outcomes"), lake.table("outcomes")
    lake.commit("outcomes", second, [], {"mark": 1})
    assert (first.version(), second.version()) == (0, 1)
    with pytest.raises(ConflictError):
        lake.commit("outcomes", first, [], {"mark": 2})
    del first, second
    assert mark_of(lake.table("outcomes"), "mark") == 1


def test_a_table_that_was_let_go_is_up_to_date_for_the_next(tmp_path: Path) -> None:
    lake, other = Lake(tmp_path), Lake(tmp_path)
    for number in range(5):
        other.commit("outcomes", other.table("outcomes"), [], {"mark": number})
        assert mark_of(lake.table("outcomes"), "mark") == number


def test_what_is_rewritten_beside_an_erasure_is_planned_again(tmp_path: Path) -> None:
    world, behind = about_to_lose_files(tmp_path, "decisions")
    assert behind.delete("decisions", pc.field("subject_id") == "s1") == 2
    assert set(world.lake.decisions("shop")["subject_id"].to_pylist()) == {"s2"}


def test_a_caller_whose_marks_are_stale_is_told_so_beside_an_erasure(tmp_path: Path) -> None:
    _, behind = about_to_lose_files(tmp_path, "decisions")
    with pytest.raises(ConflictError):
        behind.delete("decisions", pc.field("subject_id") == "s1", {"mark": 1}, seen=behind.looks.pop())


def test_rows_read_beside_an_erasure_are_read_again(tmp_path: Path) -> None:
    _, behind = about_to_lose_files(tmp_path, "decisions")
    assert len(behind.read("decisions", lambda table: table.to_pyarrow_dataset().to_table())) == 4


def test_files_that_are_lost_are_an_error_and_not_read_for_ever(tmp_path: Path) -> None:
    world, _ = about_to_lose_files(tmp_path, "decisions")
    for path in (tmp_path / "lake" / "decisions").glob("**/*.parquet"):
        path.unlink()
    with pytest.raises(FileNotFoundError):
        world.lake.decisions("shop")
    with pytest.raises(FileNotFoundError):
        world.lake.delete("decisions", pc.field("subject_id") == "s1")
