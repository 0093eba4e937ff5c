"""Every pass over partitions gives the same bits, whoever does it: this process, its threads, or a Ray cluster."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from decision.artifact import unpack
from pipelines.engines.engine import Engine, LocalEngine
from pipelines.engines.registry import engine_of
from pipelines.evaluation.evaluate import evaluate
from pipelines.guard.rows import marks, read
from pipelines.guard.store import GuardStore
from pipelines.ingestion.ingest import ingest
from pipelines.interactions.join import join, restate
from pipelines.lake.lake import Lake
from pipelines.registry.registry import Registry
from pipelines.settings import LoopSettings
from pipelines.training.train import train
from pipelines.training.window import window
from tests.parts import require
from tests.pipelines.promotion.test_watch import Shop, users
from tests.worlds.lake import LATER, LOOP, World, decision, loop_of, outcome
from tests.worlds.rollout import GuardedLoop
from tests.worlds.synthetic import LATER as SETTLED
from tests.worlds.synthetic import new_loop, new_settings, open_parts, play, settle


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


class Judged(NamedTuple):
    """Two nights of a loop; its first version drew the second night, so weights are balanced over both."""

    lake: Lake
    registry: Registry
    loop: LoopSettings
    versions: list[str]


def judged_of(folder: Path, oracle: str) -> Judged:
    settings = new_settings(folder)
    loop = new_loop(settings, "colours", f'[policy]\noracle = "{oracle}"\n[training]\ngeneration_rows = 100\n')
    log, lake = open_parts(settings)
    registry = Registry(settings)
    play(log, loop.name, 400)
    settle(log, lake, loop)
    first = train(lake, registry, loop, seed=1, now=SETTLED).version
    policy, _ = unpack(registry.files(loop.name, first))
    play(log, loop.name, 400, first=400, policy=policy, version=first)
    settle(log, lake, loop)
    return Judged(lake, registry, loop, [first, train(lake, registry, loop, seed=2, now=SETTLED).version])


@pytest.fixture(scope="module")
def judged_loops(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Judged]:
    return cache(lambda oracle: judged_of(tmp_path_factory.mktemp("judged"), oracle))


def test_a_window_is_the_same(
    judged_loops: Callable[[str], Judged], engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake, _, loop, _ = judged_loops("logistic")
    monkeypatch.setattr("pipelines.training.window.SLICE", 90)
    loop = msgspec.structs.replace(loop, training=msgspec.structs.replace(loop.training, window=700, sample=300))
    ends = [at.isoformat() for at in lake.interactions(loop.name)["ts"].to_pylist()[200:600:150]]
    here, there = (window(lake, loop, trainings=ends, engine=by) for by in (None, engine))
    assert len(here.slices) > 5
    assert there.data == here.data
    assert 0 < here.data.sampled < here.rows
    assert there.holdout.equals(here.holdout)
    assert pa.concat_tables(there.picked()).equals(pa.concat_tables(here.picked()))
    assert np.array_equal(there.learned()[1], here.learned()[1])


@pytest.mark.parametrize("oracle", ["logistic", "vw"])
def test_an_evaluation_is_the_same(
    judged_loops: Callable[[str], Judged], engine: Engine, monkeypatch: pytest.MonkeyPatch, oracle: str
) -> None:
    lake, registry, loop, (first, second) = judged_loops(oracle)
    monkeypatch.setattr("pipelines.training.window.SLICE", 90)
    monkeypatch.setattr("pipelines.evaluation.evaluate.MAX_ROWS", 60)
    here, there = (evaluate(lake, registry, loop, second, against=first, engine=by) for by in (None, engine))
    assert there == here
    assert here.rows > 100 > here.health.rows


def test_the_evaluation_of_a_policy_with_memory_is_the_same(
    tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = Shop(tmp_path)
    shop.see(users(3, 40), "user", timedelta(0))
    monkeypatch.setattr("pipelines.training.window.SLICE", 100)
    lake, registry, loop = shop.world.lake, shop.registry, shop.loop
    here, there = (evaluate(lake, registry, loop, shop.session, against="baseline", engine=by) for by in (None, engine))
    assert there == here
    assert here.trajectories is not None
