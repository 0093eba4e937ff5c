"""Blinding, a panel's verdict and agreement: what the workflow rests on."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decision.errors import FieldError
from decision.fairness.agreement import accuracy, agreement
from decision.fairness.blinding import ALWAYS_HIDDEN, payload, visible
from decision.fairness.panel import votes_needed
from decision.fairness.resolve import tally
from decision.fairness.rule import Rule

SECRET = "s3cr3t"
PROTECTED = ("gender", "user.age", "Afam")
plain = st.sampled_from(["income", "debt", "user", "job", "history", "age", "x.y"])
hidden = st.sampled_from(["Name", "id", "EMAIL", "gender", "afam", "subject_id", "outcome", "action", "meta.gender"])
leaf = st.one_of(st.integers(-5, 5), st.floats(-9, 9), st.booleans(), st.none(), st.sampled_from(["red", "blue"]))


def secrets() -> st.SearchStrategy[Any]:
    """Values that may not be shown, wherever they stand."""
    return st.recursive(
        st.just(SECRET), lambda inner: st.lists(inner, max_size=2) | st.dictionaries(plain, inner, max_size=2)
    )


def contexts() -> st.SearchStrategy[dict[str, Any]]:
    inner = st.dictionaries(plain, leaf, max_size=3)
    nested = st.dictionaries(plain, st.one_of(leaf, inner, st.lists(inner, max_size=2)), max_size=4)
    leaking = st.dictionaries(hidden, secrets(), max_size=3)
    return st.tuples(nested, leaking, st.sampled_from(["", "user", "history"])).map(_mixed)


def _mixed(parts: tuple[dict[str, Any], dict[str, Any], str]) -> dict[str, Any]:
    nested, leaking, place = parts
    return nested | ({place: leaking} if place else leaking) | {"note": f"{SECRET}-person-17", "user.age": SECRET}


@given(contexts(), contexts())
def test_a_blinded_payload_holds_no_name_id_protected_attribute_outcome_or_action(
    left: dict[str, Any], right: dict[str, Any]
) -> None:
    cards = [visible(person, protected=PROTECTED, identifiers=["person-17"]) for person in (left, right)]
    shown = payload(cards[0], cards[1], (0.7, 0.1), treatment="getting the loan")
    text = json.dumps(shown)
    assert SECRET not in text
    for card in shown["cards"]:
        for path in card["features"]:
            parts = path.casefold().split(".")
            assert not ({"gender", "afam"} | ALWAYS_HIDDEN) & set(parts)
            assert "user.age" not in path.casefold()
    assert set(shown) == {"treatment", "cards", "differs"}
    assert all(set(card) == {"probability", "features"} for card in shown["cards"])


@given(contexts(), contexts())
def test_the_payload_marks_exactly_what_differs(left: dict[str, Any], right: dict[str, Any]) -> None:
    cards = [visible(person, protected=PROTECTED) for person in (left, right)]
    shown = payload(cards[0], cards[1], (0.7, 0.1), treatment="x")
    one, two = (card["features"] for card in shown["cards"])
    assert list(one) == list(two)
    assert shown["differs"] == [name for name in one if one[name] != two[name]]


def test_allowed_features_are_shown_by_their_path() -> None:
    context = {
        "user": {"income": 3, "age": 40, "pets": ["cat", "dog"]},
        "loans": [{"sum": 1.5}, {"sum": 2}],
        "ok": True,
    }
    assert visible(context, protected=["user.age"]) == {
        "user.income": 3.0,
        "user.pets": "cat, dog",
        "loans.0.sum": 1.5,
        "loans.1.sum": 2.0,
        "ok": True,
    }


def test_more_features_than_anyone_would_read_are_refused() -> None:
    with pytest.raises(FieldError, match="200"):
        visible({f"f{n}": n for n in range(201)}, protected=[])


limits = st.lists(st.one_of(st.none(), st.floats(0, 1)), max_size=9)


@given(st.floats(0, 1), limits, st.floats(0.05, 1), st.floats(0, 1))
def test_a_verdict_follows_the_quorum_of_those_who_judged(
    gap: float, acceptable: list[float | None], quorum: float, sensitivity: float
) -> None:
    rule = Rule(auditors=9, minimum=2, quorum=quorum, sensitivity=sensitivity)
    done = tally(gap, acceptable, rule, complete=True)
    voted = [limit for limit in acceptable if limit is not None]
    assert done.unfair + done.fair == len(voted)
    assert done.abstained == len(acceptable) - len(voted)
    if len(voted) < 2:
        assert done.status == "no_quorum"
    else:
        assert (done.status == "upheld") == (done.unfair >= votes_needed(len(voted), quorum))
        if done.status == "disputed":
            assert min(done.unfair, done.fair) >= 2
    assert tally(gap, acceptable, rule, complete=False).status == "open"


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"auditors": 0}, "auditors"),
        ({"minimum": 6}, "minimum"),
        ({"quorum": 0.0}, "quorum"),
        ({"sensitivity": 2.0}, "sensitivity"),
        ({"deadline_s": 0.0}, "deadline_s"),
    ],
)
def test_rules_outside_their_range_name_the_field(values: dict[str, Any], field: str) -> None:
    with pytest.raises(FieldError) as caught:
        Rule(**values)
    assert caught.value.field == field


def test_krippendorffs_alpha_is_that_of_his_example() -> None:
    """Four observers, twelve units, nominal: alpha = 0.743 (Krippendorff 2011, section C)."""
    rows = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
        [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
    ]
    units = [[value for value in unit if value is not None] for unit in zip(*rows, strict=True)]
    found = agreement(units)
    assert found.alpha is not None
    assert round(found.alpha, 3) == 0.743
    assert (found.units, found.judgements) == (11, 40)


def test_agreement_is_one_when_all_agree_and_unknown_when_nothing_varies() -> None:
    assert agreement([["a", "a"], ["b", "b", "b"]]).alpha == 1.0
    assert agreement([["a", "a"], ["a", "a"]]) == (None, 1.0, 2, 4)
    assert agreement([["a"], []]) == (None, None, 0, 0)


def test_accuracy_on_gold_tasks_is_a_share_per_judge() -> None:
    assert accuracy({"p": [("unfair", "unfair"), ("fair", "unfair")], "q": []}) == {"p": 0.5}
