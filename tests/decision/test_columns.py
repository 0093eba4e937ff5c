"""Columns say what the dictionaries said, however the rows are cut, taken and joined."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decision.batch import Batch
from decision.columns import FeatureRows, Texts, joined
from decision.errors import FieldError

FEATURES = st.dictionaries(st.sampled_from(["x", "y", "kind=a", "kind=b", "é"]), st.sampled_from([0.0, -0.0, 1.0, 2.5]))
ROWS = st.lists(FEATURES, max_size=12)


@given(ROWS, st.data())
def test_rows_are_the_dictionaries_in_their_order(rows: list[dict[str, float]], data: st.DataObject) -> None:
    columns = FeatureRows.of(rows)
    assert list(columns) == rows
    assert [list(row) for row in columns] == [list(row) for row in rows]
    index = data.draw(st.lists(st.integers(0, max(len(rows) - 1, 0)), max_size=8 if rows else 0))
    assert list(columns.take(np.array(index, dtype=np.int64))) == [rows[i] for i in index]
    start, stop = sorted(data.draw(st.tuples(st.integers(0, 12), st.integers(0, 12))))
    assert columns[start:stop] == rows[start:stop]
    name, value, offsets = columns.entries()
    written = [
        {columns.names[c]: v for c, v in zip(name[a:b].tolist(), value[a:b].tolist(), strict=True)}
        for a, b in pairwise(offsets)
    ]
    assert written == rows


@given(ROWS, st.randoms(use_true_random=False))
def test_the_interned_form_depends_on_the_rows_alone(rows: list[dict[str, float]], random: object) -> None:
    plain = FeatureRows.of(rows).interned()
    extra = [{"unused": 1.0}, *rows, {"x": 9.0}]
    held_otherwise = joined([FeatureRows.of(extra), rows]).take(np.arange(1, len(rows) + 1)).interned()
    for one, other in ((plain, held_otherwise), (plain, plain.interned())):
        assert list(one.names) == list(other.names)
        for field in ("name", "value", "offsets", "rows"):
            assert np.array_equal(getattr(one, field), getattr(other, field)), field
    assert list(plain) == rows
    assert plain.distinct == len({tuple(row.items()) for row in rows})
    first_seen = list(dict.fromkeys(plain.rows.tolist()))
    assert first_seen == list(range(plain.distinct))


@given(st.lists(ROWS, max_size=4))
def test_joined_parts_stand_one_after_another(parts: list[list[dict[str, float]]]) -> None:
    assert list(joined(parts)) == [row for part in parts for row in part]


@given(st.lists(st.sampled_from(["a", "b", "c"]), min_size=1))
def test_texts_are_the_texts(texts: list[str]) -> None:
    interned = Texts.of(texts)
    assert interned == texts
    assert interned[1:] == texts[1:]
    assert [interned[i] for i in range(len(texts))] == texts
    assert interned.take(np.array([0, 0])) == [texts[0], texts[0]]
    assert len(interned.names) == len(set(texts))


def test_a_batch_of_columns_takes_like_one_of_dictionaries() -> None:
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 5, 20)
    offsets = np.concatenate(([0], np.cumsum(sizes)))
    contexts = [{"x": float(i)} for i in range(20)]
    actions = [{"a": float(j % 3)} for j in range(offsets[-1])]
    ids = [f"a{j % 3}" for j in range(offsets[-1])]
    plain = Batch(contexts, actions, ids, offsets)
    columns = Batch(FeatureRows.of(contexts), FeatureRows.of(actions), Texts.of(ids), offsets)
    index = np.array([4, 4, 19, 0])
    one, other = plain.take(index), columns.take(index)
    assert list(one.contexts) == list(other.contexts)
    assert list(one.actions) == list(other.actions)
    assert list(one.action_ids) == list(other.action_ids)
    assert np.array_equal(one.offsets, other.offsets)


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("offsets", {"offsets": np.array([0, 1])}),
        ("offsets", {"offsets": np.array([1, 2])}),
        ("value", {"value": np.zeros(3)}),
        ("rows", {"rows": np.array([1])}),
        ("rows", {"rows": np.array([-1])}),
    ],
)
def test_arrays_that_do_not_fit_are_refused(field: str, change: dict[str, np.ndarray]) -> None:
    arrays = {
        "name": np.zeros(2, np.int32),
        "value": np.zeros(2),
        "offsets": np.array([0, 2]),
        "rows": np.array([0, 0]),
    }
    FeatureRows(["x"], **arrays)
    with pytest.raises(FieldError, match=field):
        FeatureRows(["x"], **(arrays | change))
