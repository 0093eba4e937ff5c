"""Every pass over the latest tables is repeated where an erasure takes its files away, and finds what is left."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from pipelines.evaluation.alarms import alarms
from pipelines.features.push import push_new
from pipelines.features.store import Features
from pipelines.settings import load_settings
from pipelines.trajectories.catalogue import catalogue_of
from tests.worlds.behind import about_to_lose_files
from tests.worlds.lake import LOOP, loop_of


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
