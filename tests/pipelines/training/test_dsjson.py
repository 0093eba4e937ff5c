from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest

from decision.artifact import unpack
from decision.errors import FieldError, SupportError
from decision.features import flatten, merged
from pipelines.formats.dsjson.read import read_dsjson
from pipelines.interactions.arrays import to_interactions
from pipelines.registry.registry import Registry
from pipelines.training.dsjson import chunks, train_from_dsjson
from tests.worlds.synthetic import LATER, new_loop, new_settings


def line(number: int, pick: int, cost: float, **changes: object) -> dict:
    made = {
        "_label_cost": cost,
        "_label_probability": 0.5,
        "_label_Action": pick + 1,
        "_labelIndex": pick,
        "Timestamp": f"2026-01-01T00:00:{number % 60:02d}.0000000Z",
        "Version": "1",
        "EventId": f"e{number}",
        "a": [pick + 1, 2 - pick],
        "c": {
            "C": {"hour": number % 24, "country": "de"},
            "_multi": [{"_tag": "x", "A": {"price": 1.5}}, {"A": {"b": "y"}}],
        },
        "p": [0.5, 0.5],
        "VWState": {"m": "1"},
    }
    return {**made, **changes}


def write(path: Path, lines: list[dict]) -> Path:
    path.write_text("".join(json.dumps(entry) + "\n" for entry in lines))
    return path


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Action 1 pays always, action 2 never; one line was deferred and never activated."""
    rows = [line(i, i % 2, -1.0 if i % 2 == 0 else 0.0) for i in range(400)]
    return write(tmp_path / "log.dsjson", [*rows, line(400, 0, 0.0, _skipLearn=True)])


def test_lines_read_for_training_are_those_that_an_import_reads(log: Path) -> None:
    (table,) = read_dsjson(log)
    imported = to_interactions(table.slice(0, 400))
    parts = list(chunks(log, rows=150))
    assert sum(skipped for _, skipped in parts) == 1
    read = [part for part, _ in parts]
    assert [context for part in read for context in part.batch.contexts] == list(imported.batch.contexts)
    drawn = [imported.batch.actions[int(j)] for j in imported.chosen]
    assert [action for part in read for action in part.batch.actions] == drawn
    assert np.array_equal(np.concatenate([part.reward for part in read]), imported.reward)
    assert np.array_equal(np.concatenate([part.propensity for part in read]), imported.propensity)


@pytest.mark.parametrize(
    "context",
    [
        {"C": {"x": 1, "y": -0.5, "t": "a b", "on": True, "none": None}},
        {"C": {"x": 1}, "U": {"x": 2, "é": "日本"}, "E": {}},
        {"C": {"deep": {"er": [1, 2], "s": ["a", "b"]}}, "D": {"z": 1e-7}},
        {"n": 3, "s": "text", "C": {"x": 1e15}},
        {"_n": 3, "_u": {"x": 1}, "C": {"_x": 1, "y": 2}},
        {"C": {"D": [{"x": 1}, {"x": 2}]}},
        {"C": {"D.x": 1}, "C.D": {"x": 2}},
        {"C": {"a": ": x", "b": "x, ", "c": ", ", "d": ": ", "e": "x: , y"}},
        {"C": {": ": 1, ", ": 2, "a ": ": ", " ": ", "}},
        {"C": {"quote": 'a"b\\c', "nl": "\n"}},
        {"C": {f"f{i}": i / 7 for i in range(300)}},
        {},
    ],
)
def test_contexts_are_flattened_together_as_each_alone(tmp_path: Path, context: dict) -> None:
    plain = {"C": {"hour": 3, "country": "de"}}
    every = [plain, context, plain, {**plain, **context}, context]
    multi = line(0, 0, 0.0)["c"]["_multi"]
    path = write(tmp_path / "log.dsjson", [line(i, 0, 0.0, c={**c, "_multi": multi}) for i, c in enumerate(every)])
    ((part, _),) = chunks(path)
    assert list(part.batch.contexts) == [flatten(c, field="c") for c in every]
    assert [list(found) for found in part.batch.contexts] == [list(flatten(c, field="c")) for c in every]


def test_repeated_name_counts_once_with_its_last_value(tmp_path: Path) -> None:
    text = json.dumps(line(0, 0, 0.0)).replace('"hour": 0', '"hour": 0, "hour": 5')
    (tmp_path / "log.dsjson").write_text(text + "\n")
    ((part, _),) = chunks(tmp_path / "log.dsjson")
    assert list(part.batch.contexts) == [{"C.hour": 5.0, "C.country=de": 1.0}]


@pytest.mark.parametrize("wrong", [b'"hour": 0, "x": "\xff"', b'"hour": 1e999', b'"hour": {"a":{"b":{"c":{"d":1}}}}'])
def test_context_that_is_none_is_named_by_its_line(tmp_path: Path, wrong: bytes) -> None:
    good = json.dumps(line(0, 0, 0.0)).encode()
    path = tmp_path / "log.dsjson"
    path.write_bytes(good + b"\n\n" + good.replace(b'"hour": 0', wrong) + b"\n")
    with pytest.raises(FieldError) as caught:
        list(chunks(path))
    assert caught.value.field.startswith("line 3")


@pytest.mark.parametrize("oracle", ["logistic", "vw", "linear"])
def test_version_learned_from_a_file_prefers_what_paid(tmp_path: Path, log: Path, oracle: str) -> None:
    settings = new_settings(tmp_path)
    loop = new_loop(settings, "moved", f'[policy]\noracle = "{oracle}"')
    registry = Registry(settings)
    trained = train_from_dsjson(log, registry, loop, seed=1, now=LATER)
    policy, manifest = unpack(registry.files("moved", trained.version))
    assert (trained.rows, trained.skipped, manifest.data["rows"]) == (400, 1, 400)
    (table,) = read_dsjson(log)
    pmf = policy.pmf(to_interactions(table.slice(0, 20)).batch).reshape(20, 2)
    assert (pmf[:, 0] > 0.8).all()


def test_oracle_that_needs_all_rows_at_once_is_refused(tmp_path: Path, log: Path) -> None:
    settings = new_settings(tmp_path)
    loop = new_loop(settings, "moved", "[policy]\nbag = 3")
    with pytest.raises(FieldError) as caught:
        train_from_dsjson(log, Registry(settings), loop, seed=1, now=LATER)
    assert caught.value.field == "policy.oracle"


def test_file_without_a_decision_makes_no_version(tmp_path: Path) -> None:
    settings = new_settings(tmp_path)
    loop = new_loop(settings, "moved", '[policy]\noracle = "vw"')
    empty = write(tmp_path / "empty.dsjson", [line(0, 0, 0.0, _skipLearn=True)])
    with pytest.raises(SupportError, match="no decision"):
        train_from_dsjson(empty, Registry(settings), loop, seed=1, now=LATER)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"_labelIndex": 2}, "line 2: _labelIndex"),
        ({"_label_probability": 0.0}, "line 2: _label_probability"),
        ({"c": {"a": 1}}, "line 2: _labelIndex"),
        ({"_label_cost": "high"}, "line 2"),
    ],
)
def test_line_that_is_no_decision_is_named(tmp_path: Path, changes: dict, field: str) -> None:
    path = write(tmp_path / "log.dsjson", [line(0, 0, 0.0), line(1, 0, 0.0, **changes)])
    with pytest.raises(FieldError) as caught:
        list(chunks(path))
    assert caught.value.field == field
    assert msgspec.json.encode(field)


def test_lines_that_stand_for_others_count_for_them(tmp_path: Path) -> None:
    kept = [line(0, 0, -1.0, pdrop=0.75), line(1, 1, -1.0, pdrop=1.0), line(2, 0, 0.0)]
    ((interactions, skipped),) = chunks(write(tmp_path / "log.dsjson", kept))
    assert (interactions.weights.tolist(), skipped) == ([4.0, 1.0], 1)


def test_personalizers_lists_are_read_in_the_shape_of_its_requests(tmp_path: Path) -> None:
    listed: list[list[dict]] = [
        [{"hour": 3, "country": "de"}],
        [],
        [{"hour": 3}, {"user": {"age": 4}}, {"hour": 5}],
        [{"user": {"tags": ["a", "b"]}}],
    ]
    multi = [{"_tag": "x", "i": {"constant": 1, "id": "x"}, "j": [{"price": 1.5}, {"kind": "y"}]}, {"_tag": "y"}]
    rows = [line(n, 0, 0.0, c={"FromUrl": entries, "_multi": multi}) for n, entries in enumerate(listed)]
    path = write(
        tmp_path / "log.dsjson", [*rows, line(9, 0, 0.0, c={"C": {"a": 1}, "FromUrl": [{"b": 2}], "_multi": multi})]
    )
    ((part, _),) = chunks(path)
    want = [flatten(merged(entries), field="c") for entries in listed]
    assert list(part.batch.contexts) == [*want, {"C.a": 1.0, "b": 2.0}]
    assert list(part.batch.actions) == [{"price": 1.5, "kind=y": 1.0}] * 5
    (table,) = read_dsjson(path)
    assert list(to_interactions(table).batch.contexts) == list(part.batch.contexts)
