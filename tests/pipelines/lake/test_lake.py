from __future__ import annotations

import contextlib
import threading
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from decision.errors import FieldError
from pipelines.ingestion.ingest import ingest
from pipelines.interactions.join import join
from pipelines.lake.lake import ConflictError, Lake, mark_of
from pipelines.lake.schemas import DEAD_LETTERS, SCHEMAS, Table
from tests.worlds.lake import LATER, LOOP, START, World, decision, outcome


def letters(*offsets: int) -> pa.Table:
    rows = [
        {"topic": "decisions", "partition": n % 2, "offset": n, "appended_at": START, "key": b"k", "value": b"v"}
        for n in offsets
    ]
    return pa.Table.from_pylist(rows, schema=DEAD_LETTERS)


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_table_exists_when_it_is_first_asked_for(tmp_path: Path, name: Table) -> None:
    lake = Lake(tmp_path / "deep" / "lake")
    assert lake.version(name) == 0
    assert lake.table(name).to_pyarrow_dataset().schema.names == SCHEMAS[name].names


def test_many_may_create_a_table_at_once(tmp_path: Path) -> None:
    versions: list[int] = []
    threads = [threading.Thread(target=lambda: versions.append(Lake(tmp_path).version("decisions"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert versions == [0] * 8


def test_files_are_invisible_until_they_are_committed(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    table = lake.table("dead_letters")
    files = lake.write("dead_letters", letters(0, 1, 2))
    assert len(files) == 2
    assert len(lake.dead_letters()) == 0
    assert lake.commit("dead_letters", table, files, {"a": 3}) == 1
    assert lake.dead_letters()["offset"].to_pylist() == [0, 2, 1]
    assert mark_of(lake.table("dead_letters"), "a") == 3
    assert mark_of(lake.table("dead_letters"), "b") is None


def test_an_address_works_like_a_folder(tmp_path: Path) -> None:
    folder, address = Lake(tmp_path), Lake(tmp_path.as_uri())
    folder.commit("dead_letters", folder.table("dead_letters"), folder.write("dead_letters", letters(0)), {})
    address.commit("dead_letters", address.table("dead_letters"), address.write("dead_letters", letters(1)), {})
    assert folder.dead_letters()["offset"].to_pylist() == address.dead_letters()["offset"].to_pylist() == [0, 1]


def test_vacuum_removes_what_a_crash_left_behind(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    lake.commit("dead_letters", lake.table("dead_letters"), lake.write("dead_letters", letters(0)), {})
    lake.write("dead_letters", letters(2))
    assert lake.vacuum("dead_letters") == 0  # young files may belong to a writer at work
    assert lake.vacuum("dead_letters", retention_hours=0) == 1
    assert len(lake.dead_letters()) == 1


def test_marks_survive_checkpoints_and_compaction(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    table = lake.table("dead_letters")
    for n in range(60):
        lake.commit("dead_letters", table, lake.write("dead_letters", letters(n)), {"a": n})
    assert (tmp_path / "dead_letters" / "_delta_log" / "_last_checkpoint").is_file()
    lake.compact("dead_letters")
    again = lake.table("dead_letters")
    assert mark_of(again, "a") == 59
    assert len(again.file_uris()) == 2


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


def test_compactions_deletions_and_appends_at_once_neither_lose_nor_repeat_a_row(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    for n in range(12):
        lake.commit("dead_letters", lake.table("dead_letters"), lake.write("dead_letters", letters(n)), {})

    def append() -> None:
        for n in range(100, 108):
            files = lake.write("dead_letters", letters(n))
            while True:
                with contextlib.suppress(ConflictError):  # a deletion went first
                    lake.commit("dead_letters", lake.table("dead_letters"), files, {})
                    break

    deleted: list[int] = []
    work = [
        lambda: lake.compact("dead_letters"),
        lambda: lake.compact("dead_letters"),
        lambda: deleted.append(lake.delete("dead_letters", pc.field("offset") < 4)),
        append,
    ]
    threads = [threading.Thread(target=step) for step in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert deleted == [4]
    assert sorted(lake.dead_letters()["offset"].to_pylist()) == [*range(4, 12), *range(100, 108)]


def test_deleting_keeps_rows_whose_column_is_null(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    rows = letters(0, 2, 4)
    rows = rows.set_column(6, "reason", pa.array([None, "gone", "kept"]))
    lake.commit("dead_letters", lake.table("dead_letters"), lake.write("dead_letters", rows), {"a": 1})
    assert lake.delete("dead_letters", pc.field("reason") == "gone", {"a": 2}) == 1
    assert lake.dead_letters()["reason"].to_pylist() == [None, "kept"]
    assert lake.delete("dead_letters", pc.field("reason") == "nothing", {"a": 3}) == 0
    assert mark_of(lake.table("dead_letters"), "a") == 3


def test_compacted_and_rewritten_files_can_be_filtered_by_text(world: World) -> None:
    world.lake.compact("decisions")
    assert world.lake.delete("decisions", pc.field("event_id") == "e7") == 1
    rows = world.lake.table("decisions").to_pyarrow_dataset()
    assert rows.count_rows(filter=pc.field("event_id").isin(["e5", "e7"]) & (pc.field("subject_id") == "ann")) == 1
