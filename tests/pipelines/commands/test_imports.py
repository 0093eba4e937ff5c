"""`decision import` through the command line: what came again is told with its effect, what is wrong with its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipelines.operations.init import init_loop
from pipelines.settings import load_settings
from tests.pipelines import test_cli
from tests.worlds.disk import own_disk

run = test_cli.run

HEAD = "event,ts,action,actions,propensity,reward\n"
ROWS = [f"e{row},{1772323200 + row},a,a|b,.5,{row % 2}" for row in range(9)]


def written(folder: Path, *rows: str) -> str:
    (folder / "feed.csv").write_text(HEAD + "".join(f"{row}\n" for row in rows))
    return str(folder / "feed.csv")


def test_events_that_come_again_are_counted_with_their_effect_on_intervals(run: Any, tmp_path: Path) -> None:
    path = written(tmp_path, *ROWS, *ROWS[:7])
    (note,) = run("import", "csv", path, "--name", "feed", "--json").result["imports"]
    assert (note["rows"], note["reasons"]) == (9, {"repeated": 7})
    assert note["repeats_would_narrow"] == pytest.approx(1 - np.sqrt(9 / 16), abs=1e-6)
    told = run("import", "csv", path, "--name", "feed")
    assert "left out 7 events that were there before" in told.out
    assert "would make intervals 25.0% too narrow" in told.out


def test_an_import_that_is_run_again_into_a_loop_finds_no_more_repeats_in_the_log(run: Any, tmp_path: Path) -> None:
    init_loop(load_settings({}, home=str(tmp_path / "home")), "news")
    path = written(tmp_path, *ROWS, *ROWS[:7])
    first = run("import", "csv", path, "--into", "news", "--json").result
    again = run("import", "csv", path, "--into", "news", "--json").result
    assert (first["rows"], first["left_out"]) == (9, 7)
    assert (again["rows"], again["left_out"]) == (0, 16)
    assert first["repeats_would_narrow"] == again["repeats_would_narrow"]


def test_an_export_without_room_names_its_file_and_not_the_lake(run: Any, tmp_path: Path) -> None:
    run("import", "csv", written(tmp_path, *ROWS), "--name", "feed")
    with own_disk(tmp_path) as disk:
        disk.fill()
        told = run("export", "feed", str(disk.path / "feed.parquet"))
    assert told.status == 1
    assert "feed.parquet: the disk has no room for it; make room on it, and begin again" in told.err
    assert "damaged" not in told.err


@pytest.mark.parametrize("into", [(), ("--into", "news")])
@pytest.mark.parametrize(
    ("row", "place"),
    [
        ("e3,1772323900,a,a|b,.5,1", "feed.csv: row 9: event_id: 'e3' came before with another decision"),
        ("f,1772323900,a,a|a,.5,1", "feed.csv: row 9: action_ids: must be ids, and each once"),
        ("f,1772323900,a,a|b,.5", "feed.csv: row 9: must be of 6 columns, is 5"),
        ("f,12,a,a|b,.5,1", "feed.csv: row 9: ts: must be a time in s, as the first of the file, or --time-unit given"),
    ],
)
def test_errors_name_file_row_and_field_and_nothing_is_kept(
    run: Any, tmp_path: Path, row: str, place: str, into: tuple[str, ...]
) -> None:
    init_loop(load_settings({}, home=str(tmp_path / "home")), "news")
    refused = run("import", "csv", written(tmp_path, *ROWS, row), "--name", "feed", *into, "--json")
    assert refused.status == 2
    assert refused.result["error"].startswith(place)
    assert run("replay", "feed", "--json").status == 2
    assert not list((tmp_path / "home").rglob("interactions.parquet"))


@pytest.mark.parametrize("told", [(), ("--time-unit", "s")])
def test_rounds_that_are_numbered_are_no_times_until_their_unit_is_told(
    run: Any, tmp_path: Path, told: tuple[str, ...]
) -> None:
    rounds = pd.DataFrame(
        {
            "event_id": ["a", "b"],
            "ts": [0, 1],
            "action_ids": [["x", "y"]] * 2,
            "action_index": [0, 1],
            "propensity": [0.5, 0.5],
            "reward": [1.0, 0.0],
            "context": [{"age": 3}, {"tab": "home"}],
        },
        index=pd.Index([4, 9]),
    )
    rounds.to_parquet(tmp_path / "rounds.parquet")
    done = run("import", "parquet", str(tmp_path / "rounds.parquet"), "--name", "rounds", *told, "--json")
    assert done.status == (0 if told else 2)
    if told:
        assert done.result["imports"][0]["last"] == "1970-01-01T00:00:01+00:00"
    else:
        assert done.result["error"].startswith("rounds.parquet: row 0: ts: ")
        assert "--time-unit" in done.result["error"]
