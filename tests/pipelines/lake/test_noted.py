"""A lake whose log was cut back or replaced since a night noted it is found; one that was made anew goes on."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipelines.ingestion.ingest import ingest
from pipelines.lake.damage import DamagedError
from pipelines.lake.lake import Lake
from pipelines.lake.noted import check_noted, note
from pipelines.lake.schemas import Table
from pipelines.lake.tables import Tables
from pipelines.state.state import State
from tests.worlds.lake import World, decision

NOW = datetime(2026, 4, 1, 3, tzinfo=UTC)
NAMES: tuple[Table, ...] = ("decisions", "outcomes")


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    for number in range(4):
        bring(made, f"e{number}")
    return made


@pytest.fixture
def state(tmp_path: Path, world: World) -> Iterator[State]:
    with State(f"sqlite:///{tmp_path / 'state.db'}") as opened:
        note(opened, world.lake, NAMES, NOW)
        yield opened


def bring(world: World, event: str) -> None:
    world.append(decision(event))
    ingest(world.log, world.lake, loops={"shop"})


def log_of(world: World) -> Path:
    return Path(world.lake.path) / "decisions" / "_delta_log"


def cut(world: World, commits: int) -> None:
    for path in sorted(log_of(world).glob("*.json"))[-commits:]:
        path.unlink()


def check(state: State, world: World) -> None:
    check_noted(state, Tables(world.lake.path), NAMES)


def test_a_log_that_goes_on_is_the_one_that_was_noted(state: State, world: World) -> None:
    check(state, world)
    bring(world, "more")
    world.lake.compact("decisions")
    check(state, world)
    note(state, world.lake, NAMES, NOW)
    check(state, world)


def test_a_log_that_was_cut_back_is_told_of_until_somebody_accepts_it(state: State, world: World) -> None:
    version = world.lake.version("decisions")
    cut(world, 2)
    says = f"2026-04-01 03:00 UTC it was at version {version}, and now is at {version - 2}.*--accept-lake"
    for _ in range(2):
        with pytest.raises(DamagedError, match=says):
            check(state, world)
        note(state, Tables(world.lake.path), NAMES, NOW)  # a night of another loop
    note(state, Tables(world.lake.path), NAMES, NOW, anew=True)
    check(state, world)


def test_a_log_that_was_cut_back_and_went_on_since_has_another_commit_there(state: State, world: World) -> None:
    cut(world, 2)
    world.lake = Lake(world.lake.path)
    for number in range(5):
        bring(world, f"other{number}")
    with pytest.raises(DamagedError, match="its log was replaced"):
        check(state, world)


def test_a_commit_that_was_written_anew_is_told_of(state: State, world: World) -> None:
    last = max(log_of(world).glob("*.json"))
    last.write_bytes(last.read_bytes() + b"\n")
    with pytest.raises(DamagedError, match="its log was replaced"):
        check(state, world)


def test_a_lake_that_was_moved_away_and_made_anew_goes_on(
    state: State, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.move(world.lake.path, f"{world.lake.path}.away")
    check(state, world)
    assert "the table decisions was made anew" in caplog.text
    note(state, Tables(world.lake.path), NAMES, NOW)
    caplog.clear()
    check(state, world)
    assert caplog.text == ""


def test_a_commit_that_is_past_its_retention_tells_nothing(state: State, world: World) -> None:
    table = world.lake.table("decisions")
    table.create_checkpoint()
    bring(world, "more")
    (log_of(world) / f"{table.version():020d}.json").unlink()
    check(state, world)
