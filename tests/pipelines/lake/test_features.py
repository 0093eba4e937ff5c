"""Columns say, entry for entry and in order, what `flatten` makes of every text."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
from hypothesis import example, given
from hypothesis import strategies as st

from decision.batch import Features
from decision.errors import FieldError
from decision.features import VERSION
from pipelines.lake.features import (
    action_features,
    context_features,
    contexts_of,
    flat_actions,
    flat_contexts,
    with_features,
    without_features,
)

KEYS = st.sampled_from(
    ["a", "b", "a=b", "a.b", "a[0]", "b#2", "_a", "feature._a", "feature.a", "é", "", "x:y", "k,{", "long" * 70]
) | st.text(max_size=4)
TEXTS = st.sampled_from(["", "b", "b=c", ": x", ", y", "}{", '"', "\\", "line\n", "t" * 1025]) | st.text(max_size=6)
NUMBERS = (
    st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([0, -0.0, 1e15, -1.1e15, 1e300, 2**53, 2**53 + 1, 2**70, 5e-324])
)
PLAIN = NUMBERS | TEXTS | st.booleans() | st.none()
VALUES = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=6
)
OBJECTS = st.dictionaries(KEYS, PLAIN, max_size=6) | st.dictionaries(KEYS, VALUES, max_size=6)
JSON_TEXTS = st.builds(
    json.dumps,
    OBJECTS,
    ensure_ascii=st.booleans(),
    separators=st.sampled_from([(",", ":"), (", ", ": "), (" , ", " :\n")]),
)
BROKEN = st.builds(
    lambda text, at, put: text[: at % (len(text) + 1)] + put + text[at % (len(text) + 1) + (put == "") :],
    JSON_TEXTS,
    st.integers(0, 200),
    st.sampled_from(["", '"', ",", ":", "}", "{", "0", "-", ".", "e", " ", "1.", "tru", "null", "[", '"a":1,']),
)
ANY = JSON_TEXTS | BROKEN
TEXTS_ALONE = pa.schema([("context", pa.string()), ("feature_snapshot", pa.string())])

VALUE_TEXTS = [
    *[
        "1.",
        ".5",
        "01",
        "-0",
        "-0.0",
        "1e999",
        "-",
        "+1",
        "1e5",
        "1E+5",
        "1e",
        "1e5.5",
        "--1",
        "0x1",
        "0x1p3",
        "nan",
        "Infinity",
        "true",
        "True",
        "nul",
        "-01",
        "00",
        "0",
        "1.5.2",
    ],
    *["-.5", "1-2", "1e-400", "123456789012345678901234567890", "0.1", "9007199254740993", "1_0", "2.e3", "[1]", "{}"],
    *("", "1 2", " 1"),
]


def read(context: str, snapshot: str) -> list[tuple[str, str]] | None:
    try:
        return exact(context_features(context, snapshot))
    except FieldError:
        return None


def exact(row: Features) -> list[tuple[str, str]]:
    return [(name, number.hex()) for name, number in row.items()]


@given(st.lists(st.tuples(ANY, st.just("{}") | ANY), max_size=8))
@example([('{"a":"b=c","a=b":"c"}', "{}"), ('{"a=b":2,"a":"b"}', "{}"), ('{"a":1,"a":2}', "{}")])
@example([('{"feature.a":1}', '{"a":2}'), ('{"a":1}', '{"a":2}')])
@example([('{"a":": x"}', "{}"), ('{"a": ", y", "b": 1}', "{}")])
@example([(f'{{"a":{text}}}', "{}") for text in VALUE_TEXTS])
@example([(f'{{"a":{text},"b":1}}', '{"c":3}') for text in VALUE_TEXTS])
@example(
    [('{"a":1', "{}"), ('"b":2}', "{}"), ('{"a":', "{}"), ("1}", "{}"), ("", "{}"), ('{"a":"', "{}"), ('"}', "{}")]
)
def test_contexts_are_what_flatten_makes_of_each(texts: list[tuple[str, str]]) -> None:
    contexts, snapshots = ([pair[side] for pair in texts] for side in (0, 1))
    rows, errors = flat_contexts(pa.array(contexts, pa.string()), pa.array(snapshots, pa.string()))
    expected = [read(*pair) for pair in texts]
    assert sorted(errors) == [row for row, features in enumerate(expected) if features is None]
    assert [exact(row) for row in rows] == [features or [] for features in expected]


@given(st.lists(st.lists(OBJECTS, min_size=1, max_size=3), max_size=5), st.data())
def test_actions_are_what_flatten_makes_of_each(lists: list[list[dict[str, object]]], data: st.DataObject) -> None:
    texts, sizes = list[str](), list[int]()
    for objects in lists:
        separators = data.draw(st.sampled_from([(",", ":"), (", ", ": ")]))
        text = json.dumps(objects, separators=separators, ensure_ascii=data.draw(st.booleans()))
        if data.draw(st.integers(0, 9)) == 0:
            at = data.draw(st.integers(0, len(text)))
            text = text[:at] + data.draw(st.sampled_from(["}", "{", ",", "]", "[", '"', "{},"])) + text[at:]
        texts += [text] * data.draw(st.integers(1, 2))
        sizes += [len(objects) + data.draw(st.sampled_from([0, 0, 0, 1]))] * (len(texts) - len(sizes))
    rows, errors = flat_actions(pa.array(texts, pa.string()), np.array(sizes, np.int64))
    at = 0
    for row, (text, k) in enumerate(zip(texts, sizes, strict=True)):
        try:
            expected = [exact(features) for features in action_features(text, k)]
        except FieldError:
            assert row in errors
            expected = [[]] * k
        else:
            assert row not in errors
        assert [exact(features) for features in rows[at : at + k]] == expected
        at += k
    assert at == len(rows)


@given(st.lists(st.tuples(ANY, st.just("{}") | JSON_TEXTS), max_size=8), st.data())
def test_columns_of_the_lake_are_read_as_their_texts(texts: list[tuple[str, str]], data: st.DataObject) -> None:
    plain = pa.table({"context": [a for a, _ in texts], "feature_snapshot": [b for _, b in texts]}, TEXTS_ALONE)
    stored = with_features(plain)
    for name, value in zip(stored["context_names"].to_pylist(), stored["context_values"].to_pylist(), strict=True):
        assert (name is None) == (value is None)
    expected = contexts_of(plain)
    chosen = np.array(data.draw(st.permutations(range(len(texts)))), np.int64)
    versions = pa.array([data.draw(st.sampled_from([VERSION, VERSION + 1, None])) for _ in texts], pa.int32())
    for table in (stored, stored.set_column(2, "features_version", versions), without_features(stored)):
        rows, errors = contexts_of(table)
        assert list(errors) == list(expected.errors)
        assert [exact(row) for row in rows] == [exact(row) for row in expected.rows]
        shuffled, _ = contexts_of(pa.concat_tables([table.take(chosen), table.slice(0, 1)]))
        assert [exact(row) for row in shuffled] == [exact(expected.rows[int(i)]) for i in [*chosen, *[0][: len(texts)]]]
