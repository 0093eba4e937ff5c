from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from decision.errors import FieldError
from pipelines.features.uploads import add_upload, latest, read_upload

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
TIME = pa.timestamp("us", "UTC")


def csv(folder: Path, text: str) -> Path:
    path = folder / "subjects.csv"
    path.write_text(text)
    return path


def test_ids_stay_as_written_and_only_nothing_is_no_value(tmp_path: Path) -> None:
    table = read_upload(csv(tmp_path, "subject_id,country,age,member\n007,NA,3,true\n8,,,\n"), now=NOW)
    assert table.to_pylist() == [
        {"subject_id": "007", "event_timestamp": NOW, "country": "NA", "age": 3.0, "member": 1.0},
        {"subject_id": "8", "event_timestamp": NOW, "country": None, "age": None, "member": None},
    ]


def test_of_two_rows_of_one_subject_and_time_the_last_counts(tmp_path: Path) -> None:
    text = "subject_id,ts,age\nu,2026-01-01T00:00:00Z,1\nu,2026-01-02T00:00:00Z,2\nu,2026-01-01T00:00:00Z,3\n"
    table = read_upload(csv(tmp_path, text), now=NOW)
    assert sorted(zip(table["event_timestamp"].to_pylist(), table["age"].to_pylist(), strict=True)) == [
        (datetime(2026, 1, 1, tzinfo=UTC), 3.0),
        (datetime(2026, 1, 2, tzinfo=UTC), 2.0),
    ]


def test_parquet_numbers_and_categories_become_doubles_and_text(tmp_path: Path) -> None:
    path = tmp_path / "subjects.parquet"
    columns = {
        "subject_id": pa.array([1, 2]),
        "count": pa.array([2**53, None], pa.int64()),
        "kind": pa.array(["x", "y"]).dictionary_encode(),
        "share": pa.array([0.5, float("nan")], pa.float32()),
    }
    pq.write_table(pa.table(columns), path)
    assert read_upload(path, now=NOW).drop_columns("event_timestamp").to_pylist() == [
        {"subject_id": "1", "count": 2.0**53, "kind": "x", "share": 0.5},
        {"subject_id": "2", "count": None, "kind": "y", "share": None},
    ]


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("user,age\nu,1\n", "subject_id"),
        ("subject_id\nu\n", "columns"),
        ("subject_id,ts,a\nu,yesterday,1\n", "ts"),
        ("subject_id,ts,a\nu,,1\nv,2026-01-01T00:00:00Z,1\n", "ts"),
        ("subject_id,a\n,1\n", "subject_id"),
        (f"subject_id,a\n{'u' * 257},1\n", "subject_id"),
        ("subject_id,a\nu,inf\n", "a"),
        (f"subject_id,a\nu,{'x' * 1025}\n", "a"),
        ("subject_id,a b\nu,1\n", "a b"),
        ("subject_id,stream_decisions\nu,1\n", "stream_decisions"),
        ("subject_id,category_y\nu,1\n", "category_y"),
        ("subject_id,event_timestamp\nu,1\n", "event_timestamp"),
        ("subject_id,age,Age\nu,1,2\n", "Age"),
        ("subject_id,a\n", "path"),
        ("subject_id," + ",".join(f"f{i}" for i in range(201)) + "\nu" + ",1" * 201 + "\n", "columns"),
    ],
)
def test_a_table_that_does_not_fit_names_the_column(tmp_path: Path, text: str, field: str) -> None:
    with pytest.raises(FieldError) as caught:
        read_upload(csv(tmp_path, text), now=NOW)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("column", "field"),
    [
        ({"tags": pa.array([["a"]])}, "tags"),
        ({"day": pa.array([NOW.date()])}, "day"),
        ({"id": pa.array([2**53 + 1], pa.int64())}, "id"),
    ],
)
def test_a_column_of_another_kind_is_refused(tmp_path: Path, column: dict[str, pa.Array], field: str) -> None:
    path = tmp_path / "subjects.parquet"
    pq.write_table(pa.table({"subject_id": ["u"], **column}), path)
    with pytest.raises(FieldError) as caught:
        read_upload(path, now=NOW)
    assert caught.value.field == field


def test_a_file_that_is_no_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "subjects.parquet"
    path.write_bytes(b"no table")
    for wrong in (path, tmp_path / "missing.csv"):
        with pytest.raises(FieldError, match="path"):
            read_upload(wrong, now=NOW)


def table(rows: list[tuple[str, float, float]], **extra: pa.Array) -> pa.Table:
    subjects, seconds, ages = zip(*rows, strict=True)
    times = pa.array([NOW + timedelta(seconds=s) for s in seconds], TIME)
    return pa.table({"subject_id": list(subjects), "event_timestamp": times, "age": list(ages), **extra})


def test_a_later_upload_adds_rows_and_features_and_replaces_equal_times() -> None:
    earlier = table([("u", 0, 1.0), ("v", 0, 2.0)])
    both = add_upload(earlier, table([("u", 0, 3.0), ("u", 9, 4.0)], city=pa.array(["x", "y"])))
    rows = {(r["subject_id"], r["age"], r["city"]) for r in both.to_pylist()}
    assert rows == {("v", 2.0, None), ("u", 3.0, "x"), ("u", 4.0, "y")}


def test_an_upload_without_an_earlier_feature_or_with_another_type_is_refused() -> None:
    earlier = table([("u", 0, 1.0)], city=pa.array(["x"]))
    with pytest.raises(FieldError) as caught:
        add_upload(earlier, table([("u", 0, 3.0)]))
    assert caught.value.field == "city"
    with pytest.raises(FieldError) as caught:
        add_upload(earlier, table([("u", 0, 3.0)], city=pa.array([1.0])))
    assert caught.value.field == "city"


def test_a_column_without_a_value_has_no_type_of_its_own() -> None:
    named, empty = table([("u", 0, 1.0)], city=pa.array(["x"])), table([("u", 1, 2.0)], city=pa.nulls(1, pa.float64()))
    for both in (add_upload(named, empty), add_upload(empty, named)):
        assert both.schema.field("city").type == pa.string()
        assert sorted(both["city"].to_pylist(), key=str) == [None, "x"]


def test_the_latest_row_is_the_last_that_has_begun() -> None:
    rows = table([("u", 10, 2.0), ("u", 0, 1.0), ("v", 11, 3.0)])
    assert latest(rows, now=NOW + timedelta(seconds=10)).to_pylist() == table([("u", 10, 2.0)]).to_pylist()
    assert latest(rows, now=NOW + timedelta(seconds=9.999999)).to_pylist() == table([("u", 0, 1.0)]).to_pylist()
