"""What the lake asks of object storage, counted at the server: every request is a wait there."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.ingestion.ingest import Ingester
from pipelines.interactions.join import join
from pipelines.lake.lake import Lake
from pipelines.lake.tables import mark_of
from tests.worlds.lake import LATER, LOOP, START, WINDOW, World, decision, outcome
from tests.worlds.s3 import BUCKET, S3

pytestmark = pytest.mark.connected


def append(world: World, first: int, n: int) -> None:
    world.append(*(record for i in range(first, first + n) for record in (decision(f"e{i}"), outcome(f"e{i}"))))


def test_a_join_without_work_asks_each_table_three_times_at_most(tmp_path: Path, s3: S3) -> None:
    world = World(tmp_path, lake=f"s3://{BUCKET}/idle")
    ingester = Ingester(world.log, world.lake)
    append(world, 0, 100)
    ingester.run()
    assert join(world.lake, LOOP, LATER).joined == 100
    s3.asked()
    ingester.run()
    assert s3.asked() == []  # the log had nothing new
    append(world, 100, 100)  # 200 messages in four files and two commits
    ingester.run()
    asked = s3.asked()
    assert len(asked) <= 24, asked
    assert sum("PUT" in request for request in asked) == 6
    assert join(world.lake, LOOP, LATER).joined == 100
    s3.asked()
    for _ in range(3):
        assert join(world.lake, LOOP, LATER).joined == 0
        asked = s3.asked()
        for table in ("decisions", "outcomes", "interactions"):
            assert sum(table in request for request in asked) <= 3, asked
        assert len(asked) <= 9, asked


def test_all_marks_of_a_table_are_read_at_once(tmp_path: Path, s3: S3) -> None:
    lake = Lake(f"s3://{BUCKET}/marks")
    for n in range(25):  # two checkpoints, and what came after
        lake.commit("decisions", lake.table("decisions"), [], {f"m{n % 7}": n, "last": n})
    table = Lake(lake.path).table("decisions")
    assert table.version() == 25
    s3.asked()
    assert mark_of(table, "last") == 24
    assert len(s3.asked()) <= 2 + 10
    assert [mark_of(table, f"m{n}") for n in range(8)] == [21, 22, 23, 24, 18, 19, 20, None]
    assert s3.asked() == []
    at_rest = Lake(lake.path).table("decisions", 11)
    assert [mark_of(at_rest, name) for name in ("last", "m0", "m6", "m9")] == [10, 7, 6, None]


def test_a_night_in_progress_on_another_machine_is_seen(tmp_path: Path, s3: S3) -> None:
    here, there = (Lake(f"s3://{BUCKET}/two") for _ in range(2))
    world = World(tmp_path, lake=here.path)
    for n in range(3):
        append(world, 10 * n, 10)
        Ingester(world.log, here).run()
        assert join(there, LOOP, START + 2 * WINDOW).joined == 10
        assert join(here, LOOP, START + 2 * WINDOW).joined == 0
