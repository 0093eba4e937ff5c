"""Every pass over partitions gives the same bits, whoever does it: this process, its threads, or a Ray cluster."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from pipelines.engines.engine import Engine, LocalEngine
from pipelines.engines.registry import engine_of
from pipelines.guard.rows import marks, read
from pipelines.guard.store import GuardStore
from pipelines.ingestion.ingest import ingest
from pipelines.interactions.join import join, restate
from pipelines.lake.lake import Lake
from tests.parts import require
from tests.worlds.lake import LATER, LOOP, World, decision, loop_of, outcome
from tests.worlds.rollout import GuardedLoop


@pytest.fixture(scope="module", params=["threads", pytest.param("ray", marks=pytest.mark.connected)])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    if request.param == "threads":
        yield LocalEngine(3)
        return
    try:
        import ray
    except ImportError:
        require(None, "Ray is not installed")
        raise
    yield engine_of("ray", workers=2)
    ray.shutdown()


def settled(lake: Lake) -> pa.Table:
    rows = lake.table("interactions").to_pyarrow_dataset().to_table()
    return rows.sort_by([("partition", "ascending"), ("offset", "ascending")])


@pytest.mark.parametrize("late", [False, True])
def test_a_restatement_settles_the_same(tmp_path: Path, engine: Engine, late: bool) -> None:
    world = World(tmp_path)
    for part in range(3):
        world.append(*(decision(f"e{part}-{n}", subject_id=f"s{n % 3}", deferred=n % 5 == 0) for n in range(30)))
        world.append(*(outcome(f"e{part}-{n}", n / 8, after=float(100 * n)) for n in range(0, 30, 2)))
        ingest(world.log, world.lake)
        join(world.lake, LOOP, LATER)
    shutil.copytree(tmp_path / "lake", tmp_path / "other")
    changed = loop_of('[reward]\nversion = "2"\naggregation = "mean"\nwindow_s = 1500\nmaximum = 2.0\n')
    here = restate(world.lake, changed, LATER, late=late, rows_per_commit=7)
    other = Lake(tmp_path / "other")
    there = restate(other, changed, LATER, late=late, rows_per_commit=7, engine=engine)
    assert msgspec.structs.replace(there, table_version=0) == msgspec.structs.replace(here, table_version=0)
    assert here.joined > 20
    assert settled(other).equals(settled(world.lake))


def test_the_guards_evidence_is_the_same(tmp_path: Path, engine: Engine) -> None:
    shop = GuardedLoop(tmp_path)
    shop.point("candidate", "2")
    shop.step()
    for _ in range(3):
        shop.serve(shop.step(), 60, 0.6, 0.3)
        shop.settle()
    lake = shop.world.lake
    state = GuardStore(shop.settings, "shop").load()
    state = msgspec.structs.replace(state, positions={})
    until = marks(lake, "shop")
    assert len(until) == 2
    here, there = read(lake, state, until), read(lake, state, until, engine)
    assert len(here[0].reward) > 100
    assert there[1:] == here[1:]
    for one, other in zip(there[0], here[0], strict=True):
        assert np.array_equal(one, other)
    shop.close()
