from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decision.errors import FieldError
from decision.features import MAX_FEATURES, MAX_NUMBER, flatten, looked_up

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
        ({"a": 1.0000001e15}, "context.a"),
        ({"a": -(10**15) - 1}, "context.a"),
        ({"a": {"b": [2, 1e200]}}, "context.a.b[1]"),
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
    assert all(isinstance(v, float) and abs(v) <= MAX_NUMBER for v in out.values())


def test_what_is_on_record_is_read_at_the_limits() -> None:
    value = {"a": 1e200, "b": -(10**20), "c": 7, "d": [1e16]}
    cut = flatten(value, field="context", cut=True)
    assert cut == {"a": MAX_NUMBER, "b": -MAX_NUMBER, "c": 7.0, "d[0]": MAX_NUMBER}
    many = {f"f{i}": [{"x": 1}, {"x": 2}] for i in range(MAX_FEATURES)}
    assert len(flatten(many, field="context", cut=True)) == MAX_FEATURES
    with pytest.raises(FieldError, match="at most 2000 features"):
        flatten(many, field="context")


def test_what_a_store_holds_never_stops_a_decision() -> None:
    held = {"a": float("inf"), "b": 1e300, "c": 2, "d": float("nan"), "s": "x"}
    assert looked_up(held) == {"feature.b": MAX_NUMBER, "feature.c": 2.0, "feature.s=x": 1.0}


@pytest.mark.parametrize(
    ("value", "features"),
    [
        ({"items": [{"qty": 3}, {"qty": 5}]}, {"items.qty": 3, "items.qty#2": 5}),
        ({"items": [{"qty": 3}, {"qty": 3}, {"qty": 3}]}, {"items.qty": 3, "items.qty#2": 3, "items.qty#3": 3}),
        ({"j": [{"price": 3}, {"colour": "red"}]}, {"j.price": 3, "j.colour=red": 1}),  # namespaces side by side
        ({"j": [{"c": "x"}, {"c": "y"}, {"c": "x"}]}, {"j.c=x": 1, "j.c=y": 1}),
        ({"a": {"b": 1}, "a.b": 2}, {"a.b": 1, "a.b#2": 2}),
        ({"a": {"b": 1}, "a.b": 2, "a.b#2": 9}, {"a.b": 1, "a.b#2": 9, "a.b#3": 2}),
        ({"a": "b", "a=b": 4}, {"a=b": 1, "a=b#2": 4}),
        ({"v": [1, 2], "v[1]": 7}, {"v[0]": 1, "v[1]": 2, "v[1]#2": 7}),
        ({"t": ["a", "a"]}, {"t=a": 1}),
        ({"_x": 1, "a": {"_y": 2, "z": 3}, "b": [{"_w": 1, "_": 5}], "": 4}, {"a.z": 3, "": 4}),
    ],
)
def test_names_that_meet_are_told_apart_and_hidden_ones_left_out(value: dict, features: dict) -> None:
    found = flatten(value, field="context")
    assert found == features
    assert flatten(dict(reversed(value.items())), field="context") == found


def test_what_is_hidden_is_not_looked_at() -> None:
    assert flatten({"_note": {"deep": [[["x" * 5_000]]], "big": 1e300}, "a": 1}, field="context") == {"a": 1.0}


@given(st.dictionaries(st.text(max_size=5), JSON, max_size=5))
def test_every_number_is_kept_under_a_name_of_its_own(value: dict) -> None:
    def numbers(item: object) -> int:
        if isinstance(item, dict):
            return sum(numbers(inner) for key, inner in item.items() if not key.startswith("_"))
        if isinstance(item, list):
            return sum(map(numbers, item))
        return isinstance(item, bool | int | float)

    try:
        found = flatten(value, field="context", cut=True)
    except FieldError:
        return
    texts = [name for name in found if "=" in name]  # texts, or numbers under such a name
    assert len(found) - len(texts) <= numbers(value) <= len(found)


def test_version_1_reads_as_it_did() -> None:
    value = {"_x": 1, "items": [{"qty": 3}, {"qty": 5}], "a.b": 1, "a": {"b": 2}}
    assert flatten(value, field="context", version=1) == {"_x": 1.0, "items.qty": 5.0, "a.b": 2.0}
