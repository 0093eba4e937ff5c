"""Parquet as pandas and others write it: its index is no column, dictionaries are features, numbers may be times."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from decision.errors import FieldError
from pipelines.formats.parquet import read_parquet
from pipelines.formats.rows import check_rows
from pipelines.formats.store import load_import, save_import
from pipelines.interactions.arrays import to_interactions
from pipelines.settings import load_settings

N = 4


def frame(**changes: Any) -> pd.DataFrame:
    columns: dict[str, Any] = {
        "event_id": [f"e{row}" for row in range(N)],
        "ts": pd.date_range("2026-03-01", periods=N, freq="min", tz="UTC"),
        "action_ids": [["a", "b"]] * N,
        "action_index": [0, 1, 0, 1],
        "propensity": [0.5, 0.25, 0.5, 0.25],
        "reward": [1.0, 0.0, 0.5, 0.0],
    }
    return pd.DataFrame(columns | changes)


def read(folder: Path, written: pd.DataFrame, **asked: Any) -> pa.Table:
    written.to_parquet(folder / "f.parquet")
    return pa.concat_tables(read_parquet(folder / "f.parquet", **asked))


@pytest.mark.parametrize("kind", ["filtered", "numbered", "named", "two levels"])
def test_the_index_of_pandas_is_no_column(tmp_path: Path, kind: str) -> None:
    written = frame()
    if kind == "filtered":
        written = pd.concat([frame(), frame()]).tail(N)
    elif kind == "numbered":
        written.index = pd.Index([5, 7, 11, 13])
    elif kind == "named":
        written.index = pd.Index([5, 7, 11, 13], name="row")
    else:
        written.index = pd.MultiIndex.from_product([[0, 1], ["x", "y"]])
    assert read(tmp_path, written).equals(read(tmp_path, frame()))


def test_an_index_that_is_a_column_of_ours_is_read(tmp_path: Path) -> None:
    assert read(tmp_path, frame().set_index("event_id")).equals(read(tmp_path, frame()))


def test_other_columns_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(FieldError, match="rewards: unknown column; did you mean 'reward'"):
        read(tmp_path, frame(rewards=[1] * N))


def test_structs_are_features_and_what_pandas_filled_up_is_not_there(tmp_path: Path) -> None:
    contexts = [{"age": 41, "tab": "home"}, {"age": 7}, {"tab": "deep"}, {"user": {"tags": ["x", "y"]}}]
    actions = [[{"price": 2.5}, {"new": True}]] * N
    rows = read(tmp_path, frame(context=contexts, actions=actions, feature_snapshot=[{"seen": 3.0}] * N))
    assert [json.loads(text) for text in rows["context"].to_pylist()] == contexts
    assert json.loads(rows["actions"][0].as_py()) == actions[0]
    settings = load_settings({}, home=str(tmp_path / "home"))
    save_import(settings, "given", [rows], format="parquet", source="x")
    log = to_interactions(load_import(settings, "given"))
    assert dict(log.batch.actions[0]) == {"price": 2.5}
    assert {"age": 41.0, "tab=home": 1.0}.items() <= dict(log.batch.contexts[0]).items()


def test_maps_decimals_and_bytes_are_features(tmp_path: Path) -> None:
    plain = pa.Table.from_pandas(frame())
    maps = pa.array([[("x", 1.5)], [], [("y", None)], [("z", 2.0)]], pa.map_(pa.string(), pa.float64()))
    exact = pa.array([[{"price": Decimal("2.50"), "code": b"ab", "odd": float("nan")}, {}]] * N)
    pq.write_table(plain.append_column("context", maps).append_column("actions", exact), tmp_path / "f.parquet")
    (rows,) = read_parquet(tmp_path / "f.parquet")
    assert rows["context"].to_pylist() == ['{"x":1.5}', "{}", "{}", '{"z":2.0}']
    assert json.loads(rows["actions"][0].as_py())[0] == {"price": 2.5, "code": "YWI=", "odd": None}


@pytest.mark.parametrize(
    ("column", "value"), [("context", [1.0, 2.0]), ("context", [{"a": 1}]), ("actions", {"a": 1}), ("actions", ["a"])]
)
def test_features_of_another_shape_are_named_with_their_row(tmp_path: Path, column: str, value: Any) -> None:
    with pytest.raises(FieldError, match=rf"^row 0: {column}: must be a (list of structs|struct)"):
        read(tmp_path, frame(**{column: [value] * N}))


@pytest.mark.parametrize("per_second", [1, 1_000, 1_000_000, 1_000_000_000])
def test_times_that_are_numbers_are_no_microseconds_unless_they_are(tmp_path: Path, per_second: int) -> None:
    stamps = [(1_772_323_200 + row) * per_second for row in range(N)]
    rows = read(tmp_path, frame(ts=stamps, matured_at=stamps))
    for column in ("ts", "matured_at"):
        assert rows[column][0].as_py() == datetime(2026, 3, 1, tzinfo=UTC)
        assert rows[column][3].as_py() == datetime(2026, 3, 1, 0, 0, 3, tzinfo=UTC)


def test_ambiguous_times_ask_for_their_unit_and_take_it(tmp_path: Path) -> None:
    with pytest.raises(FieldError, match=r"^row 0: ts: .*--time-unit"):
        read(tmp_path, frame(ts=[0, 60, 120, 180]))
    assert read(tmp_path, frame(ts=[0, 60, 120, 180]), time_unit="ms")["ts"][1].as_py().timestamp() == 0.06


def test_ids_that_pandas_made_floats_are_the_ids_they_were(tmp_path: Path) -> None:
    rows = read(tmp_path, frame(subject_id=[7, None, 12_345_678, 9]))
    assert rows["subject_id"].to_pylist() == ["7", None, "12345678", "9"]


def test_nulls_where_there_is_a_neutral_value_are_it(tmp_path: Path) -> None:
    rows = read(tmp_path, frame(policy_version=[None, "v1", None, "v2"], slot=[None] * N, pass_probability=[None] * N))
    assert rows["policy_version"].to_pylist() == ["", "v1", "", "v2"]
    check_rows(rows)


def test_outcomes_whose_times_are_numbers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FieldError, match="outcomes: must be a list of outcomes whose ts are timestamps"):
        read(tmp_path, frame(outcomes=[[{"name": "reward", "value": 1.0, "ts": 1_772_323_200}]] * N))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        (
            {"action_ids": [["a", "b"], ["b", "b"], ["a", "b"], ["a", "b"]]},
            "row 1: action_ids: must be ids, and each once",
        ),
        ({"action_ids": [["a", None]] * N}, "row 0: action_ids: must be ids"),
        ({"event_id": ["e", "", "f", "g"]}, "row 1: event_id: must be 1 to 256 characters"),
        ({"event_id": ["e", "f", "g", "x" * 257]}, "row 3: event_id"),
        ({"state": ["joined", "joined", "open", "joined"]}, "row 2: state: must be one of joined"),
        ({"mode": ["offline"] * N}, "row 0: mode"),
        ({"step": [0, 1, 2, -1], "episode_id": ["x"] * N}, "row 3: step: must be 0 or more"),
        ({"schema_version": [99] * N}, "row 0: schema_version"),
        ({"seed": [-1] * N}, "row 0: seed"),
        ({"guard_weight": [1.5] * N}, "row 0: guard_weight"),
        ({"propensity": [0.5, 1e-60, 0.5, 0.25]}, "row 1: propensity: must be at least"),
        ({"reward": [0.0, 1e80, 0.0, 0.0]}, "row 1: reward: must be up to"),
        ({"pmf_baseline": [[0.5, 0.5], [1.0], [1.0, 0.0], [0.0, 1.0]]}, "row 1: pmf_baseline: must be one probability"),
        ({"pmf_candidate": [[0.5, 0.25]] * N}, "row 0: pmf_candidate: must be a sum of 1"),
        ({"ts": pd.date_range("1969-12-31", periods=N, freq="D", tz="UTC")}, "row 0: ts: must be a time between"),
    ],
)
def test_what_a_replay_could_not_read_is_refused_at_import(tmp_path: Path, changes: dict[str, Any], match: str) -> None:
    settings = load_settings({}, home=str(tmp_path / "home"))
    frame(**changes).to_parquet(tmp_path / "f.parquet")
    with pytest.raises(FieldError, match=match):
        save_import(settings, "given", read_parquet(tmp_path / "f.parquet"), format="parquet", source="x")
    assert not list((settings.root / "imports").iterdir())


def test_three_digits_each_are_probabilities(tmp_path: Path) -> None:
    settings = load_settings({}, home=str(tmp_path / "home"))
    rounded = [[0.2, 0.2, 0.599]] * N
    frame(action_ids=[["a", "b", "c"]] * N, pmf=rounded, propensity=[0.2] * N).to_parquet(tmp_path / "f.parquet")
    save_import(settings, "given", read_parquet(tmp_path / "f.parquet"), format="parquet", source="x")
    assert load_import(settings, "given")["pmf"].to_pylist() == rounded


def test_a_log_of_which_all_was_dropped_is_refused(tmp_path: Path) -> None:
    settings = load_settings({}, home=str(tmp_path / "home"))
    frame(state=["dropped"] * N).to_parquet(tmp_path / "f.parquet")
    with pytest.raises(FieldError, match="state: must be joined or expired in one row or more, is dropped in all"):
        save_import(settings, "given", read_parquet(tmp_path / "f.parquet"), format="parquet", source="x")


def test_a_file_that_is_cut_or_damaged_is_told_so(tmp_path: Path) -> None:
    frame(context=["{}"] * N).to_parquet(tmp_path / "f.parquet")
    whole = (tmp_path / "f.parquet").read_bytes()
    (tmp_path / "f.parquet").write_bytes(whole[:-20])
    with pytest.raises(FieldError, match="path: must be a Parquet file"):
        list(read_parquet(tmp_path / "f.parquet"))
    (tmp_path / "f.parquet").write_bytes(whole[:4] + b"\xff" * 60 + whole[64:])
    with pytest.raises(FieldError, match="row 0 or after: must be whole rows"):
        list(read_parquet(tmp_path / "f.parquet"))
