"""Parquet of any shape, read by a map from fields to columns and fields of structs."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from decision.errors import FieldError
from pipelines.cli import app
from pipelines.formats.parquet import find, read_parquet
from pipelines.formats.rows import check_features, check_rows

MAP = {
    "ts": "at",
    "action_ids": "offered",
    "action": "shown",
    "propensity": "draw.p",
    "reward": "click",
    "context.hour": "hour",
    "context.age": "user.profile.age",
    "context.tags": "user.tags",
    "subject_id": "user.id",
}


def clicks(**changes: Any) -> pa.Table:
    """A log as an application keeps it: its own names, ids as numbers, what it knows of a user in a struct."""
    columns: dict[str, Any] = {
        "at": [1_772_323_200, 1_772_323_260, 1_772_323_320],
        "offered": [[10, 20], [10, 20, 30], [20, 30]],
        "shown": [20, 10, 30],
        "draw": [{"p": 0.5, "seed": 1}, {"p": 0.25, "seed": 2}, {"p": 0.5, "seed": 3}],
        "click": [1, 0, 1],
        "hour": [9, None, 23],
        "user": [
            {"id": "u1", "profile": {"age": 41}, "tags": ["new"]},
            {"id": "u2", "profile": None, "tags": None},
            None,
        ],
        "note": ["x", "y", "z"],
    }
    return pa.table(columns | changes)


def read(folder: Path, table: pa.Table, columns: dict[str, str], **asked: Any) -> pa.Table:
    pq.write_table(table, folder / "clicks.parquet")
    return pa.concat_tables(read_parquet(folder / "clicks.parquet", columns, name="clicks", **asked))


def test_columns_and_fields_of_structs_become_a_log(tmp_path: Path) -> None:
    rows = read(tmp_path, clicks(), MAP)
    check_rows(rows)
    check_features(rows)
    assert rows["action_ids"].to_pylist() == [["10", "20"], ["10", "20", "30"], ["20", "30"]]
    assert (rows["action_index"].to_pylist(), rows["propensity"].to_pylist()) == ([1, 0, 1], [0.5, 0.25, 0.5])
    assert (rows["reward"].to_pylist(), rows["subject_id"].to_pylist()) == ([1.0, 0.0, 1.0], ["u1", "u2", None])
    assert [json.loads(text) for text in rows["context"].to_pylist()] == [
        {"hour": 9, "age": 41, "tags": ["new"]},
        {},
        {"hour": 23},
    ]
    assert rows["ts"][1].as_py() == datetime(2026, 3, 1, 0, 1, tzinfo=UTC)
    assert rows["event_id"].to_pylist() == ["clicks-0", "clicks-1", "clicks-2"]


def test_rows_are_numbered_through_the_whole_file(tmp_path: Path) -> None:
    assert read(tmp_path, clicks(), MAP, rows_per_batch=2)["event_id"].to_pylist()[2] == "clicks-2"


def test_a_column_of_our_own_name_needs_no_map(tmp_path: Path) -> None:
    table = clicks(event_id=["a", "b", "c"], context=['{"day":1}', "{}", "{}"], reward=[0.5, 0.5, 0.5])
    columns = {field: column for field, column in MAP.items() if not field.startswith("context.") and field != "reward"}
    rows = read(tmp_path, table, columns)
    assert (rows["event_id"].to_pylist(), rows["reward"].to_pylist()) == (["a", "b", "c"], [0.5] * 3)
    assert json.loads(rows["context"][0].as_py()) == {"day": 1}


def test_ids_may_be_text_with_bars_or_json(tmp_path: Path) -> None:
    table = clicks(offered=["10|20", "[10, 20, 30]", '["20", "30"]'])
    assert read(tmp_path, table, MAP)["action_index"].to_pylist() == [1, 0, 1]


WRONG = [
    ({"rewards": "click"}, r"^map: must be .*; did you mean 'reward'"),
    ({"reward": "clicks"}, r"^map.reward: must be .*; did you mean 'click'"),
    ({"context.age": "user.profile.ages"}, r"^map.context.age: must be a field of the struct user.profile, one of age"),
    ({"context.age": "hour.x"}, "^map.context.age: must be hour alone, no struct"),
    ({"context": "note"}, "^map.context: must be the whole context, without context.hour"),
    ({"action_index": "shown"}, "^map.action: must be left out with action_index"),
]


@pytest.mark.parametrize(("changes", "match"), WRONG)
def test_a_map_that_does_not_fit_is_refused_by_its_field(tmp_path: Path, changes: dict[str, str], match: str) -> None:
    with pytest.raises(FieldError, match=match):
        read(tmp_path, clicks(), MAP | changes)


def test_what_is_missing_is_named_with_the_columns_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(FieldError, match=r"^map.propensity: must be the column that holds it, of at, offered"):
        read(tmp_path, clicks(), {field: column for field, column in MAP.items() if field != "propensity"})


def test_an_action_that_was_not_offered_names_its_row(tmp_path: Path) -> None:
    with pytest.raises(FieldError, match=r"^row 2: action: must be one of the actions offered, \['20', '30'\], is 10"):
        read(tmp_path, clicks(shown=[20, 10, 10]), MAP)


def test_without_a_map_an_unknown_column_says_that_there_is_one(tmp_path: Path) -> None:
    pq.write_table(clicks(), tmp_path / "clicks.parquet")
    (found,) = find(tmp_path / "clicks.parquet", "clicks")
    with pytest.raises(FieldError, match=r"^at: unknown column.*--map reward=at"):
        list(found.batches)


def test_the_command_takes_a_map(tmp_path: Path) -> None:
    pq.write_table(clicks(), tmp_path / "clicks.parquet")
    maps = [each for field, column in MAP.items() for each in ("--map", f"{field}={column}")]
    arguments = ["import", "parquet", str(tmp_path / "clicks.parquet"), "--name", "clicks", *maps]
    done = CliRunner().invoke(app, arguments, env={"DECISION_HOME": str(tmp_path / "home")})
    assert done.exit_code == 0, done.output
    assert (tmp_path / "home" / "imports" / "clicks" / "import.json").is_file()
