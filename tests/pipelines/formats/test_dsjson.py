from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from decision.errors import FieldError
from pipelines.formats.dsjson.read import read_dsjson
from pipelines.formats.dsjson.write import write_dsjson
from pipelines.formats.rows import check_rows, complete

# A line as VW's library writes it, after test/train-sets/dsjson_cb.json of VowpalWabbit (BSD).
LINE: dict[str, Any] = {
    "_label_cost": -0.5,
    "_label_probability": 0.8,
    "_label_Action": 2,
    "_labelIndex": 1,
    "o": [{"v": 0.5, "EventId": "e-1", "ActionTaken": False}],
    "Timestamp": "2017-08-30T07:17:59.8730000Z",
    "Version": "1",
    "EventId": "e-1",
    "a": [2, 1, 3],
    "c": {
        "FromUrl": [{"timeofday": "Morning", "temp": 17}],
        "_multi": [{"coffee": {"roast": "dark"}}, {"coffee": {"roast": "light"}}, {"tea": True}],
    },
    "p": [0.8, 0.15, 0.05],
    "VWState": {"m": "model-7"},
}
KEPT = (
    "event_id",
    "ts",
    "context",
    "actions",
    "action_ids",
    "pmf",
    "action_index",
    "propensity",
    "policy_version",
    "reward",
    "state",
)


def written(folder: Path, *lines: dict[str, Any]) -> Path:
    path = folder / "log.json"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_a_line_is_read_as_the_format_means_it(tmp_path: Path) -> None:
    table = pa.concat_tables(read_dsjson(written(tmp_path, LINE)))
    check_rows(table)
    row = table.to_pylist()[0]
    assert row["pmf"] == [0.15, 0.8, 0.05]  # in the order offered, not in the order ranked
    assert (row["action_index"], row["propensity"], row["reward"]) == (1, 0.8, 0.5)
    assert row["ts"] == datetime(2017, 8, 30, 7, 17, 59, 873000, tzinfo=UTC)
    assert json.loads(row["context"]) == {"timeofday": "Morning", "temp": 17}  # as a request lists it
    assert json.loads(row["actions"]) == LINE["c"]["_multi"]
    assert (row["action_ids"], row["policy_version"]) == (["1", "2", "3"], "model-7")
    assert [outcome["value"] for outcome in row["outcomes"]] == [0.5]


def test_tags_become_ids_when_they_can(tmp_path: Path) -> None:
    def ids(*tags: str) -> list[str]:
        multi = [{"_tag": tag} if tag else {} for tag in tags]
        line = LINE | {"c": {"_multi": multi}}
        return pa.concat_tables(read_dsjson(written(tmp_path, line)))["action_ids"][0].as_py()

    assert ids("x", "y", "z") == ["x", "y", "z"]
    assert ids("x", "x", "z") == ids("x", "", "z") == ["1", "2", "3"]


def test_lines_sampled_down_and_never_activated_say_so(tmp_path: Path) -> None:
    lines = (LINE | {"pdrop": 0.75}, LINE | {"EventId": "e-2", "_skipLearn": True})
    table = pa.concat_tables(read_dsjson(written(tmp_path, *lines)))
    check_rows(table)
    assert table["pass_probability"].to_pylist() == [0.25, 1.0]
    assert table["state"].to_pylist() == ["joined", "dropped"]
    assert table["reward"].to_pylist() == [0.5, None]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"_labelIndex": 2}, "line 2: _labelIndex"),
        ({"_label_probability": 0.3}, "line 2: _label_probability"),
        ({"a": [2, 1, 1]}, "line 2: a"),
        ({"p": [0.8, 0.2]}, "line 2: p"),
        ({"c": {"FromUrl": []}}, "line 2: c._multi"),
        ({"_label_cost": "much"}, "line 2: _label_cost"),
        ({"Timestamp": "yesterday"}, "line 2: Timestamp"),
    ],
)
def test_a_line_that_contradicts_itself_is_named(tmp_path: Path, change: dict[str, Any], field: str) -> None:
    with pytest.raises(FieldError) as caught:
        list(read_dsjson(written(tmp_path, LINE, LINE | change)))
    assert caught.value.field == field


def test_a_line_without_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.json"
    path.write_text('{"a": "' + "x" * (2 << 20))
    with pytest.raises(FieldError, match="line 1"):
        list(read_dsjson(path))


_names = st.text(alphabet="abcdefgh", min_size=1, max_size=4)
_values = st.one_of(st.floats(-1e6, 1e6), st.text(max_size=5), st.booleans(), st.lists(st.text(max_size=3)))
_objects = st.dictionaries(_names, _values, max_size=3)
_times = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


@st.composite
def _decisions(draw: st.DrawFn) -> dict[str, Any]:
    k = draw(st.integers(1, 5))
    raw = draw(st.lists(st.integers(1, 1000), min_size=k, max_size=k))
    pmf = [number / sum(raw) for number in raw]
    index = draw(st.integers(0, k - 1))
    return {
        "event_id": draw(st.uuids().map(str)),
        "ts": draw(_times),
        "context": json.dumps(draw(_objects), separators=(",", ":"), ensure_ascii=False),
        "actions": json.dumps(
            draw(st.lists(_objects, min_size=k, max_size=k)), separators=(",", ":"), ensure_ascii=False
        ),
        "action_ids": [f"action {number}" for number in range(k)],
        "pmf": pmf,
        "action_index": index,
        "propensity": pmf[index],
        "policy_version": draw(_names),
        "reward": draw(st.floats(-1e6, 1e6)) + 0.0,
        "state": draw(st.sampled_from(["joined", "expired"])),
    }


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(decisions=st.lists(_decisions(), min_size=1, max_size=4))
def test_what_is_written_is_read_back(tmp_path: Path, decisions: list[dict[str, Any]]) -> None:
    table = complete({name: [row[name] for row in decisions] for name in KEPT}, len(decisions))
    assert write_dsjson(table, tmp_path / "log.dsjson") == (len(decisions), 0)
    read = pa.concat_tables(read_dsjson(tmp_path / "log.dsjson"))
    check_rows(read)
    for name in KEPT:
        if name in {"context", "actions"}:
            assert [json.loads(text) for text in read[name].to_pylist()] == [json.loads(r[name]) for r in decisions]
        elif name != "state":  # the format does not say whether an outcome came
            assert read[name].to_pylist() == table[name].to_pylist()


def test_what_the_format_cannot_hold_is_left_out_and_counted(tmp_path: Path) -> None:
    row = {
        "event_id": "e",
        "ts": datetime(2026, 1, 1, tzinfo=UTC),
        "action_ids": ["a"],
        "action_index": 0,
        "propensity": 1.0,
        "reward": 1.0,
    }
    unknown, plain = row, row | {"pmf": [1.0]}
    tables = [complete({name: [value] for name, value in entry.items()}, 1) for entry in (unknown, plain, unknown)]
    assert write_dsjson(pa.concat_tables(tables), tmp_path / "log.dsjson") == (1, 2)


def test_features_that_were_looked_up_keep_the_name_that_training_gives_them(tmp_path: Path) -> None:
    line = {"event_id": "e", "ts": datetime(2026, 1, 1, tzinfo=UTC), "action_ids": ["a"], "action_index": 0}
    line |= {"propensity": 1.0, "reward": 1.0, "pmf": [1.0], "feature_snapshot": '{"age": 3}', "context": '{"x": 1}'}
    table = complete({name: [value] for name, value in line.items()}, 1)
    write_dsjson(table, tmp_path / "log.dsjson")
    read = pa.concat_tables(read_dsjson(tmp_path / "log.dsjson"))
    assert json.loads(read["context"][0].as_py()) == {"x": 1, "feature": {"age": 3}}


def test_a_reserved_name_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    line = {"event_id": "e", "ts": datetime(2026, 1, 1, tzinfo=UTC), "action_ids": ["a"], "action_index": 0}
    line |= {"propensity": 1.0, "reward": 1.0, "pmf": [1.0], "context": '{"_multi": 1}'}
    with pytest.raises(FieldError, match="_multi"):
        write_dsjson(complete({name: [value] for name, value in line.items()}, 1), tmp_path / "log.dsjson")
    assert list(tmp_path.iterdir()) == []
