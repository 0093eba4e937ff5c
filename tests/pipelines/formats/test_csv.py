"""CSV logs of any shape: a map says which column is what, and what has no propensity is left out and counted."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from decision.errors import FieldError
from pipelines.formats.csv import find
from pipelines.formats.once import once
from pipelines.formats.store import load_import, save_import
from pipelines.interactions.arrays import to_interactions
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


@pytest.mark.parametrize("stamp", ["17672256000", "0", "1767225600250000000000"])
def test_numbers_that_are_certain_in_no_unit_ask_for_it(tmp_path: Path, stamp: str) -> None:
    path = written(tmp_path, [f"{stamp},a,a,1,0"], "ts,action,actions,propensity,reward\n")
    with pytest.raises(FieldError, match=r"^row 0: ts: .*--time-unit"):
        list(find(path, "feed")[0].batches)


def test_a_unit_that_is_told_is_taken(tmp_path: Path) -> None:
    path = written(tmp_path, ["0,a,a,1,0", "90,a,a,1,0"], "ts,action,actions,propensity,reward\n")
    (rows,) = find(path, "feed", time_unit="s")[0].batches
    assert [ts.timestamp() for ts in rows["ts"].to_pylist()] == [0.0, 90.0]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_columns_stand_between_commas_semicolons_or_tabs(tmp_path: Path, delimiter: str) -> None:
    (tmp_path / "log.csv").write_text((HEAD + "".join(f"{row}\n" for row in ROWS)).replace(",", delimiter))
    (rows,) = find(tmp_path / "log.csv", "feed", MAP)[0].batches
    assert rows["action_ids"].to_pylist() == [["v1", "v2", "v3"], ["v1", "v2"], ["v9"]]


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("a|b", ["a", "b"]),
        ('"[""a"", ""b""]"', ["a", "b"]),
        ("\"['a', 'b|c']\"", ["a", "b|c"]),
        ('"[7, 8]"', ["7", "8"]),
        ("[a]|[b]", ["[a]", "[b]"]),
    ],
)
def test_offered_actions_are_a_list_or_have_a_bar_between_them(tmp_path: Path, text: str, ids: list[str]) -> None:
    path = written(tmp_path, [f"1767225600,{ids[0]},{text},1,0"], "ts,action,actions,propensity,reward\n")
    assert next(iter(find(path, "feed")[0].batches))["action_ids"].to_pylist() == [ids]


def test_a_feature_is_of_one_kind_from_the_first_row_to_the_last(tmp_path: Path) -> None:
    """Rows enough for several blocks: the word that makes a column one of texts stands in the last."""
    rows = [f"1767225600,a,a,1,0,{row % 90},{row % 7},true,0{row % 9},{'x' * 40}" for row in range(120_000)]
    rows.append("1767225600,a,a,1,0,91,unknown,false,11,x")
    names = {"age": "age", "tab": "tab", "new": "new", "zip": "zip"}
    path = written(tmp_path, rows, "ts,action,actions,propensity,reward,age,tab,new,zip,fill\n")
    tables = list(find(path, "feed", {f"context.{name}": column for name, column in names.items()})[0].batches)
    assert len(tables) > 1
    assert tables[0]["context"][8].as_py() == '{"age":8,"tab":"1","new":true,"zip":"08"}'
    assert tables[-1]["context"][-1].as_py() == '{"age":91,"tab":"unknown","new":false,"zip":"11"}'


def test_contexts_and_features_come_as_json(tmp_path: Path) -> None:
    row = '1767225600,a,a|b,.5,true,"{""user"": {""age"": 3}}","[{""price"": 2.5}, {}]"'
    path = written(tmp_path, [row], "ts,action,actions,propensity,reward,ctx,items\n")
    settings = load_settings({}, home=str(tmp_path / "home"))
    (found,) = find(path, "feed", {"context": "ctx", "features": "items"})
    save_import(settings, "feed", found.batches, format="csv", source="x")
    log = to_interactions(load_import(settings, "feed"))
    assert dict(log.batch.contexts[0]) == {"user.age": 3.0}
    assert dict(log.batch.actions[0]) == {"price": 2.5}
    assert log.reward.tolist() == [1.0]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"context": "age"}, "map.context"),
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
        ("1767225600000,7,v1,v1|v2,half,1,,", "row 0: propensity: must be a number, is 'half'"),
        ("soon,7,v1,v1|v2,0.5,1,,", "row 0: ts"),
        ("1767225600000,7,v1,v1|v2,0.5,much,,", "row 0: reward"),
        ("1767225600000,7,v1,,0.5,1,,", "row 0: actions"),
        ("1767225600000,7,,v1|v2,0.5,1,,", "row 0: action"),
        ("1767225600000,7,v1,v1|v2,0.5,1,,,,", "row 0: must be of 8 columns, is 10"),
        ("-5,7,v1,v1|v2,0.5,1,,", "row 0: ts"),
    ],
)
def test_a_row_that_does_not_fit_is_named(tmp_path: Path, row: str, match: str) -> None:
    with pytest.raises(FieldError, match=match):
        list(find(written(tmp_path, [row]), "feed", MAP)[0].batches)


def test_a_row_is_named_by_its_number_in_the_file_whatever_was_left_out_before_it(tmp_path: Path) -> None:
    settings = load_settings({}, home=str(tmp_path / "home"))
    for bad, match in (("v1|v1,0.5,1", "row 5: action_ids"), ("v1|v2,5,1", "row 5: propensity")):
        (found,) = find(written(tmp_path, [*ROWS, ROWS[2], f"1767225600000,7,v1,{bad},,"]), "feed", MAP)
        with pytest.raises(FieldError, match=match):
            save_import(settings, "feed", once(found).batches, format="csv", source="x")


def test_a_log_of_which_nothing_is_left_says_what_became_of_it(tmp_path: Path) -> None:
    settings = load_settings({}, home=str(tmp_path / "home"))
    (found,) = find(written(tmp_path, [ROWS[2]] * 3), "feed", MAP)
    with pytest.raises(FieldError, match="left out: 3 rows without a propensity"):
        save_import(settings, "feed", found.batches, format="csv", source="x", left_out=found.left_out)


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"", "^log.csv: path: must be a CSV file"),
        ("ts,action\n1,a\n".encode("utf-16"), "^log.csv: path: must be a CSV file in UTF-8"),
        ("ts,Größe\n1,2\n".encode("latin-1"), "^log.csv: path: must be a CSV file in UTF-8"),
        (b"ts,action,ts\n1,a,2\n", "ts: must be one column of that name"),
        (b"\x1f\x8bdamaged", "^log.csv: path: must be a CSV file"),
    ],
)
def test_a_file_that_is_no_csv_is_told_so(tmp_path: Path, data: bytes, match: str) -> None:
    (tmp_path / "log.csv").write_bytes(data)
    with pytest.raises(FieldError, match=match):
        find(tmp_path / "log.csv", "feed")


def test_a_randomised_trial_needs_no_column_of_propensities(tmp_path: Path) -> None:
    (found,) = find(written(tmp_path, ROWS), "feed", {k: v for k, v in MAP.items() if k != "propensity"}, uniform=True)
    rows = pa.concat_tables(found.batches)
    assert found.left_out() == {"undrawn": 0}
    assert rows["propensity"].to_pylist() == [1 / 3, 1 / 2, 1 / 2, 1.0]


def test_propensities_are_given_once(tmp_path: Path) -> None:
    with pytest.raises(FieldError, match=r"map\.propensity.*--uniform"):
        find(written(tmp_path, ROWS), "feed", MAP, uniform=True)
