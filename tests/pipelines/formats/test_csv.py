"""CSV logs of any shape: a map says which column is what, and what has no propensity is left out and counted."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from decision.errors import FieldError
from pipelines.formats.csv import find
from pipelines.formats.store import load_import, save_import
from pipelines.settings import load_settings

HEAD = "time_ms,user_id,video_id,shown,p,is_click,tab,age\n"
ROWS = [
    "1767225600000,007,v1,v1|v2|v3,0.5,1,home,41",
    "1767225601500,007,v2,v1|v2,0.25,0,,",
    "1767225602000,8,v3,v3|v1,,1,home,30",
    "1767225603000,8,v9,v9,1.0,0.5,deep,",
]
MAP = {
    "ts": "time_ms",
    "subject": "user_id",
    "action": "video_id",
    "actions": "shown",
    "propensity": "p",
    "reward": "is_click",
    "context.tab": "tab",
    "context.age": "age",
}


def written(folder: Path, rows: list[str], head: str = HEAD) -> Path:
    path = folder / "log.csv"
    path.write_text(head + "".join(f"{row}\n" for row in rows))
    return path


def test_columns_are_taken_as_the_map_says_and_rows_without_propensity_are_counted(tmp_path: Path) -> None:
    (found,) = find(written(tmp_path, ROWS), "feed", MAP)
    rows = pa.concat_tables(found.batches)
    assert found.left_out() == {"undrawn": 1}
    assert rows["event_id"].to_pylist() == ["feed-0", "feed-1", "feed-3"]
    assert rows["subject_id"].to_pylist() == ["007", "007", "8"]
    assert rows["action_ids"].to_pylist() == [["v1", "v2", "v3"], ["v1", "v2"], ["v9"]]
    assert rows["action_index"].to_pylist() == [0, 1, 0]
    assert rows["propensity"].to_pylist() == [0.5, 0.25, 1.0]
    assert rows["reward"].to_pylist() == [1.0, 0.0, 0.5]
    assert rows["context"].to_pylist() == [
        '{"tab":"home","age":41}',
        '{"tab":null,"age":null}',
        '{"tab":"deep","age":null}',
    ]
    assert rows["ts"].to_pylist()[1].isoformat() == "2026-01-01T00:00:01.500000+00:00"


def test_an_import_tells_what_it_left_out(tmp_path: Path) -> None:
    settings = load_settings({}, home=str(tmp_path / "home"))
    (found,) = find(written(tmp_path, ROWS), "feed", MAP)
    note = save_import(settings, found.name, found.batches, format="csv", source=found.source, left_out=found.left_out)
    assert (note.rows, note.left_out) == (3, 1)
    assert len(load_import(settings, "feed")) == 3


@pytest.mark.parametrize(
    ("stamp", "seconds"),
    [("1767225600", 0.0), ("1767225600.25", 0.25), ("1767225600250", 0.25), ("1767225600250000", 0.25)],
)
def test_times_come_in_any_unit(tmp_path: Path, stamp: str, seconds: float) -> None:
    path = written(tmp_path, [f"{stamp},a,a,1,0"], "ts,action,actions,propensity,reward\n")
    (rows,) = find(path, "feed")[0].batches
    assert rows["ts"][0].as_py().timestamp() == 1_767_225_600 + seconds


def test_times_come_as_text(tmp_path: Path) -> None:
    path = written(tmp_path, ["2026-01-01T00:00:00Z,a,a,1,0"], "ts,action,actions,propensity,reward\n")
    (rows,) = find(path, "feed")[0].batches
    assert rows["ts"][0].as_py().isoformat() == "2026-01-01T00:00:00+00:00"


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"subject": "nobody"}, "map.subject"),
        ({"colour": "tab"}, "map"),
        ({"propensity": ""}, "map.propensity"),
    ],
)
def test_a_map_that_does_not_fit_is_refused(tmp_path: Path, change: dict[str, str], match: str) -> None:
    given = {field: column for field, column in (MAP | change).items() if column}
    with pytest.raises(FieldError, match=match):
        find(written(tmp_path, ROWS), "feed", given)


@pytest.mark.parametrize(
    ("row", "match"),
    [
        ("1767225600000,7,v4,v1|v2,0.5,1,,", "row 0: action"),
        ("1767225600000,7,v1,v1|v2,half,1,,", "path"),
        ("soon,7,v1,v1|v2,0.5,1,,", "ts"),
        ("-5,7,v1,v1|v2,0.5,1,,", "row 0: ts"),
    ],
)
def test_a_row_that_does_not_fit_is_named(tmp_path: Path, row: str, match: str) -> None:
    with pytest.raises(FieldError, match=match):
        list(find(written(tmp_path, [row]), "feed", MAP)[0].batches)


def test_a_randomised_trial_needs_no_column_of_propensities(tmp_path: Path) -> None:
    (found,) = find(written(tmp_path, ROWS), "feed", {k: v for k, v in MAP.items() if k != "propensity"}, uniform=True)
    rows = pa.concat_tables(found.batches)
    assert found.left_out() == {"undrawn": 0}
    assert rows["propensity"].to_pylist() == [1 / 3, 1 / 2, 1 / 2, 1.0]


def test_propensities_are_given_once(tmp_path: Path) -> None:
    with pytest.raises(FieldError, match=r"map\.propensity.*--uniform"):
        find(written(tmp_path, ROWS), "feed", MAP, uniform=True)
