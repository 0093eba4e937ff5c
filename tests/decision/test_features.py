from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decision.errors import FieldError
from decision.features import MAX_FEATURES, flatten

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=20,
)


def test_flatten_by_kind() -> None:
    value = {"n": 2, "f": 0.5, "s": "x", "yes": True, "no": False, "gone": None, "v": [1, 2.5], "t": ["a", "b"]}
    assert flatten(value, field="context") == {
        "n": 2.0, "f": 0.5, "s=x": 1.0, "yes": 1.0, "no": 0.0, "v[0]": 1.0, "v[1]": 2.5, "t=a": 1.0, "t=b": 1.0,
    }  # fmt: skip


def test_nested_objects_join_names() -> None:
    assert flatten({"user": {"age": 3, "geo": {"city": "Ulm"}}}, field="context") == {
        "user.age": 3.0,
        "user.geo.city=Ulm": 1.0,
    }


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ({"a": float("nan")}, "context.a"),
        ({"a": float("inf")}, "context.a"),
        ({"a": 10**400}, "context.a"),
        ({"a": [1, float("nan")]}, "context.a[1]"),
        ({"a": {"b": float("nan")}}, "context.a.b"),
        ({"a": "x" * 2_000}, "context.a"),
        ({"a": {"b": {"c": {"d": {"e": {"f": 1}}}}}}, "context.a.b.c.d.e"),
        ({f"f{i}": 1.0 for i in range(MAX_FEATURES + 1)}, "context"),
        ({"a": [1.0] * (MAX_FEATURES + 1)}, "context.a"),
        ({"x" * 300: 1.0}, "context." + "x" * 72),
        ({"a": object()}, "context.a"),
    ],
)
def test_value_that_does_not_fit_names_its_path(value: dict, field: str) -> None:
    with pytest.raises(FieldError) as caught:
        flatten(value, field="context")
    assert caught.value.field == field


@given(st.dictionaries(st.text(max_size=5), JSON, max_size=5))
def test_flatten_of_any_json_is_finite_numbers_or_a_field_error(value: dict) -> None:
    try:
        out = flatten(value, field="context")
    except FieldError:
        return
    assert all(isinstance(v, float) and v - v == 0 for v in out.values())
