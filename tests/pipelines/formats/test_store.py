from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from decision.errors import FieldError
from pipelines.formats.open_bandit import find_logs, read_open_bandit, shipped_sample
from pipelines.formats.parquet import read_parquet, write_parquet
from pipelines.formats.rows import check_rows, complete
from pipelines.formats.store import forget_subject, import_key, list_imports, load_import, save_import
from pipelines.lake.schemas import INTERACTIONS
from pipelines.operations.init import init_loop
from pipelines.replay.source import import_source
from pipelines.settings import Settings, load_settings
from pipelines.storage import Storage
from tests.worlds.s3 import BUCKET, S3

AT = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings({}, home=str(tmp_path / "home"))


def rows(**changes: Any) -> pa.Table:
    columns: dict[str, Any] = {
        "event_id": ["e1", "e2"],
        "ts": [AT, AT],
        "action_ids": [["a", "b"], ["a", "b", "c"]],
        "action_index": [1, 0],
        "propensity": [0.25, 0.5],
        "pmf": [[0.75, 0.25], [0.5, 0.5, 0.0]],
        "reward": [1.0, 0.0],
    }
    return complete({**columns, **changes}, 2)


def test_minimal_columns_are_completed_to_the_lakes(settings: Settings) -> None:
    table = rows()
    assert table.schema == INTERACTIONS
    assert table["actions"].to_pylist() == ["[{}, {}]", "[{}, {}, {}]"]
    note = save_import(settings, "log", [table], format="parquet", source="x")
    assert (note.rows, note.with_pmf, list_imports(settings)) == (2, 2, [note])
    assert load_import(settings, "log")["loop"].to_pylist() == ["log", "log"]


@pytest.mark.parametrize(
    ("column", "values", "field"),
    [
        ("action_index", [1, 3], "row 1: action_index"),
        ("action_index", [-1, 0], "row 0: action_index"),
        ("propensity", [0.25, 0.0], "row 1: propensity"),
        ("propensity", [float("nan"), 0.5], "row 0: propensity"),
        ("propensity", [0.4, 0.5], "row 0: propensity"),
        ("reward", [1.0, None], "row 1: reward"),
        ("reward", [float("inf"), 0.0], "row 0: reward"),
        ("pmf", [[0.75, 0.25], [0.5, 0.5]], "row 1: pmf"),
        ("pmf", [[0.75, 0.75], [0.5, 0.5, 0.0]], "row 0: pmf"),
        ("pmf", [[0.75, 0.25], [0.5, 0.7, -0.2]], "row 1: pmf"),
        ("action_ids", [["a", "b"], []], "row 1: action_ids"),
        ("event_id", ["e1", None], "row 1: event_id"),
        ("ts", [None, AT], "row 0: ts"),
    ],
)
def test_a_row_that_does_not_fit_is_named(column: str, values: list[Any], field: str) -> None:
    with pytest.raises(FieldError) as caught:
        check_rows(rows(**{column: values}))
    assert caught.value.field == field


def test_an_unknown_distribution_stays_unknown() -> None:
    table = rows(pmf=[None, [0.5, 0.5, 0.0]])
    check_rows(table)
    assert table["pmf"].null_count == 1


def test_a_refused_import_keeps_the_one_before(settings: Settings) -> None:
    before = save_import(settings, "log", [rows()], format="parquet", source="x")
    with pytest.raises(FieldError, match="row 2: propensity"):
        save_import(settings, "log", [rows(), rows(propensity=[0.0, 0.5])], format="parquet", source="y")
    assert list_imports(settings) == [before]
    assert len(load_import(settings, "log")) == 2
    assert [path.name for path in (settings.root / "imports").iterdir()] == ["log"]


def test_an_import_replaces_the_one_of_its_name(settings: Settings) -> None:
    for source in ("x", "y"):
        save_import(settings, "log", [rows(), rows()], format="parquet", source=source)
    assert [(note.source, note.rows) for note in list_imports(settings)] == [("y", 4)]


@pytest.mark.connected
def test_an_import_on_object_storage_is_listed_replaced_read_and_forgotten(tmp_path: Path, s3: S3) -> None:
    here, there = (Settings(home=str(tmp_path / name), files=f"s3://{BUCKET}/imports") for name in ("a", "b"))
    assert list_imports(here) == []
    for source in ("x", "y"):
        note = save_import(here, "log", [rows(), rows(subject_id=["ann", "bob"])], format="parquet", source=source)
    assert list_imports(there) == [note]
    assert load_import(there, "log").drop_columns(["loop", "offset"]).num_rows == 4
    with pytest.raises(FieldError, match="log"):
        load_import(there, "other")
    source = import_source(there.files_url, import_key(there, "log"))
    assert source.units() == [0, 1]
    assert sum(len(batch) for unit in source.units() for batch in source.batches(unit)) == 4
    assert len(Storage(here.files_url).list("imports")) == 2  # the rows of the first went with it
    assert forget_subject(there, "ann") == 1
    assert load_import(here, "log")["subject_id"].to_pylist() == [None, None, "bob"]
    save_import(here, "log", [rows(subject_id=["ann", "ann"])], format="parquet", source="z")
    assert forget_subject(there, "ann") == 2
    assert Storage(here.files_url).list("imports") == []
    assert not list((tmp_path / "a" / "cache").iterdir())


def test_an_import_cannot_take_the_name_of_a_loop(settings: Settings) -> None:
    init_loop(settings, "news")
    with pytest.raises(FieldError) as caught:
        save_import(settings, "news", [rows()], format="parquet", source="x")
    assert caught.value.field == "name"


def test_parquet_written_and_read_is_the_same(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    assert write_parquet(rows(), path) == (2, 0)
    again = pa.concat_tables(read_parquet(path))
    assert again.drop_columns("offset").equals(rows().drop_columns("offset"))
    assert again["offset"].to_pylist() == [0, 1]
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.parquet"]


@pytest.mark.parametrize(
    ("columns", "field"),
    [
        ({"event_id": ["a"], "colour": ["red"]}, "colour"),
        ({"event_id": ["a"]}, "ts"),
        (
            {"event_id": ["a"], "ts": ["x"], "action_ids": [["a"]], "action_index": [0], "propensity": [1.0]},
            "row 0: ts",
        ),
    ],
)
def test_parquet_with_other_columns_names_the_one_that_does_not_fit(
    tmp_path: Path, columns: dict[str, Any], field: str
) -> None:
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    with pytest.raises(FieldError) as caught:
        list(read_parquet(tmp_path / "x.parquet"))
    assert caught.value.field == field


def test_a_file_that_is_no_parquet_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"not parquet at all")
    with pytest.raises(FieldError, match="Parquet"):
        list(read_parquet(tmp_path / "x.parquet"))


@pytest.mark.parametrize(
    ("policy", "campaign", "items", "clicks"),
    [
        ("random", "all", 80, 38),
        ("bts", "all", 80, 42),
        ("random", "men", 34, 46),
        ("bts", "men", 34, 69),
        ("random", "women", 46, 46),
        ("bts", "women", 46, 46),
    ],
)
def test_open_bandit_sample_is_read_as_published(policy: str, campaign: str, items: int, clicks: int) -> None:
    folder = shipped_sample() / policy / campaign
    table = pa.concat_tables(read_open_bandit(folder, name="x"))
    check_rows(table)
    assert (len(table), int(table["reward"].to_numpy().sum())) == (10_000, clicks)
    assert {len(ids) for ids in table["action_ids"].to_pylist()} == {items}
    assert table["pmf"].null_count == len(table)  # only the propensity of the item shown was published
    if policy == "random":
        np.testing.assert_allclose(table["propensity"].to_numpy(), 1 / items)
    source = pq.read_table(folder / f"{campaign}.parquet")
    shown = [
        ids[at] for ids, at in zip(table["action_ids"].to_pylist(), table["action_index"].to_pylist(), strict=True)
    ]
    assert shown == [str(item) for item in source["item_id"].to_pylist()]


def test_open_bandit_layout_is_found_and_anything_else_refused(tmp_path: Path) -> None:
    assert len(find_logs(shipped_sample())) == 6
    with pytest.raises(FieldError, match="path"):
        find_logs(tmp_path)


def test_open_bandit_csv_is_read_like_parquet(tmp_path: Path) -> None:
    import pyarrow.csv as pa_csv

    source = shipped_sample() / "bts" / "women"
    folder = tmp_path / "bts" / "women"
    folder.mkdir(parents=True)
    data = pq.read_table(source / "women.parquet").slice(0, 200)
    pa_csv.write_csv(data, folder / "women.csv")
    pa_csv.write_csv(pq.read_table(source / "item_context.parquet"), folder / "item_context.csv")
    read = pa.concat_tables(read_open_bandit(folder, name="x"))
    wanted = pa.concat_tables(read_open_bandit(source, name="x")).slice(0, 200)
    for column in ("event_id", "ts", "action_index", "reward", "context"):
        assert read[column].to_pylist() == wanted[column].to_pylist()
    np.testing.assert_allclose(read["propensity"].to_numpy(), wanted["propensity"].to_numpy())
