"""Every pass over the latest tables is repeated where an erasure takes its files away, and finds what is left."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from pipelines.evaluation.alarms import alarms
from pipelines.features.push import push_new
from pipelines.features.store import Features
from pipelines.guard.rows import episodes_until
from pipelines.guard.state import EPISODES
from pipelines.ingestion.ingest import ingest
from pipelines.interactions.join import join
from pipelines.lake.schemas import Table
from pipelines.settings import load_settings
from pipelines.trajectories.catalogue import catalogue_of
from pipelines.trajectories.histories import KNOWN, histories
from tests.worlds.behind import about_to_lose_files
from tests.worlds.lake import LATER, LOOP, decision, loop_of


def test_alarms_look_at_what_an_erasure_left(tmp_path: Path) -> None:
    world, behind = about_to_lose_files(tmp_path, "interactions", settled=LOOP)
    assert alarms(behind, LOOP, [], seed=1) == alarms(world.lake, LOOP, [], seed=1)


def test_a_catalogue_has_what_an_erasure_left(tmp_path: Path) -> None:
    _, behind = about_to_lose_files(tmp_path, "interactions", settled=LOOP)
    assert catalogue_of(behind, "shop").ids == ["a", "b"]


@pytest.mark.parametrize("stale", ["outcomes", "decisions"])
def test_a_push_takes_each_row_that_an_erasure_left_once(tmp_path: Path, stale: str) -> None:
    loop = loop_of("[features]\nenabled = true\n")
    world, behind = about_to_lose_files(tmp_path, "outcomes" if stale == "outcomes" else "decisions")
    if stale == "decisions":
        behind.looks.append(world.lake.table("outcomes"))
    with closing(Features(load_settings({}, home=str(tmp_path)), loop)) as features:
        pushed = push_new(behind, loop, features)
        assert (pushed.decisions, pushed.outcomes, pushed.subjects) == (4, 4, 2)
        assert push_new(world.lake, loop, features).decisions == 0


@pytest.mark.parametrize("rows_at_once", [100, 1])
@pytest.mark.parametrize("stale", ["interactions", "outcomes"])
def test_histories_are_those_of_who_is_left(tmp_path: Path, rows_at_once: int, stale: Table) -> None:
    world, behind = about_to_lose_files(tmp_path, stale, settled=LOOP)
    here, there = (
        [rows.to_pydict() for rows in histories(lake, "shop", ["reward", KNOWN], rows_at_once=rows_at_once)]
        for lake in (world.lake, behind)
    )
    assert there == here
    assert {who for rows in there for who in rows["who"]} == {"s1", "s2"}


def test_episodes_end_where_those_that_are_left_do(tmp_path: Path) -> None:
    world, behind = about_to_lose_files(tmp_path, "interactions", settled=LOOP)
    world.append(*(decision(f"later{i}") for i in range(4)))
    ingest(world.log, world.lake)
    join(world.lake, LOOP, now=LATER)  # moves the marks that the erasure put back
    behind.looks.append(world.lake.table("interactions"))  # the marks are looked at first
    assert episodes_until(behind, "shop", 0.0) == episodes_until(world.lake, "shop", 0.0) != {EPISODES: 0}
