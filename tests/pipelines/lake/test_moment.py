from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pyarrow.compute as pc
import pytest
from deltalake import DeltaTable

from pipelines.ingestion.ingest import ingest
from pipelines.lake.lake import Lake
from pipelines.lake.moment import NoMomentError, at_one_moment
from pipelines.lake.schemas import Table
from tests.worlds.lake import World, decision, outcome

TABLES: tuple[Table, ...] = ("decisions", "outcomes")


class Moving(Lake):
    """Somebody commits to the decisions each time the outcomes are opened, `times` times."""

    def __init__(self, path: str, times: int) -> None:
        super().__init__(path)
        self.times = times

    def table(self, name: Table, version: int | None = None) -> DeltaTable:
        opened = super().table(name, version)
        if name == "outcomes" and self.times:
            self.times -= 1
            super().commit("decisions", super().table("decisions"), [], {"moved": self.times})
        return opened


def versions(tables: Mapping[Table, DeltaTable]) -> dict[Table, int]:
    return {name: table.version() for name, table in tables.items()}


def test_tables_that_moved_while_they_were_opened_are_looked_at_again(tmp_path: Path) -> None:
    lake = Moving(str(tmp_path), times=3)
    seen = at_one_moment(lake, TABLES, versions)
    assert lake.times == 0
    assert seen == {name: lake.version(name) for name in TABLES}


def test_without_a_moment_there_are_no_figures(tmp_path: Path) -> None:
    with pytest.raises(NoMomentError, match="between every two of 5 looks"):
        at_one_moment(Moving(str(tmp_path), times=100), TABLES, versions, looks=5)


def test_reading_begins_again_where_an_erasure_took_the_files_away(tmp_path: Path) -> None:
    world, begun = World(tmp_path), list[int]()
    world.append(*(decision(f"e{i}", subject_id=f"s{i % 2}") for i in range(8)))
    ingest(world.log, world.lake)

    def read(tables: Mapping[Table, DeltaTable]) -> int:
        begun.append(tables["decisions"].version())
        if len(begun) == 1:
            world.lake.delete("decisions", pc.field("subject_id") == "s1")
            world.lake.forget("decisions")
        return tables["decisions"].to_pyarrow_dataset().to_table().num_rows

    assert at_one_moment(world.lake, TABLES, read) == 4
    assert len(begun) == 2


def test_files_that_are_missing_for_another_reason_are_an_error(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.append(decision("e1"))
    ingest(world.log, world.lake)
    for uri in world.lake.table("decisions").file_uris():
        Path(uri).unlink()
    with pytest.raises(FileNotFoundError):
        at_one_moment(world.lake, TABLES, lambda tables: tables["decisions"].to_pyarrow_table())


def test_forgetting_earlier_versions_leaves_the_file_of_a_writer_at_work(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.append(decision("e1"), outcome("e1"))
    ingest(world.log, world.lake)
    at_work = world.lake.write("decisions", world.lake.decisions("shop"))
    assert world.lake.delete("decisions", pc.field("event_id") == "e1") == 1
    assert world.lake.forget("decisions") == 1
    world.lake.commit("decisions", world.lake.table("decisions"), at_work, {"written": 1})
    assert world.lake.decisions("shop")["event_id"].to_pylist() == ["e1"]
    assert len(world.lake.outcomes("shop")) == 1


def test_a_version_whose_files_an_erasure_took_is_refused_by_name(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.append(decision("e1"), decision("e2"))
    ingest(world.log, world.lake)
    before = world.lake.version("decisions")
    world.lake.delete("decisions", pc.field("event_id") == "e1")
    world.lake.forget("decisions")
    with pytest.raises(Exception, match="version: must be a version of the table 'decisions' whose files are kept"):
        world.lake.decisions("shop", version=before)
