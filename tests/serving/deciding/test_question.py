"""Questions are read once, actions known by their bytes, and nothing that was cached changes an answer."""

from __future__ import annotations

import json
import math
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decision.batch import one
from decision.errors import FieldError
from decision.exploration.rule import Exploration
from decision.features import flatten
from decision.oracles.logistic import LogisticOracle
from decision.policy import OraclePolicy, UniformPolicy
from serving.deciding.question import Catalogues, question_of, read_question, read_questions
from serving.wire import Action, DecideRequest
from tests.strategies import interactions_of

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-1e6, 1e6) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
OBJECTS = st.dictionaries(st.text(max_size=4), VALUES, max_size=5)
REQUESTS = st.fixed_dictionaries(
    {
        "context": OBJECTS,
        "actions": st.lists(OBJECTS, min_size=1, max_size=4).map(
            lambda rows: [{"id": f"a{i}"} | ({"features": row} if row else {}) for i, row in enumerate(rows)]
        ),
    },
    optional={
        "event_id": st.just("e"),
        "subject_id": st.just("s"),
        "step": st.integers(0, 5),
        "deferred": st.booleans(),
    },
)
SHARED = Catalogues()


@given(REQUESTS, st.sampled_from([None, 2]), st.booleans())
def test_bytes_and_objects_ask_the_same(request_: dict[str, Any], indent: int | None, ascii_: bool) -> None:
    body = json.dumps(request_, indent=indent, ensure_ascii=ascii_).encode()
    for catalogues in (Catalogues(), SHARED):
        try:
            read = read_question(body, catalogues)
        except FieldError as error:
            with pytest.raises(FieldError, match=error.field.replace("[", r"\[")):
                question_of(msgspec.json.decode(body, type=DecideRequest), catalogues)
            return
        asked = question_of(msgspec.json.decode(body, type=DecideRequest), catalogues)
        for question in (read, asked):
            assert question.context == request_["context"]
            assert msgspec.json.decode(question.raw_context) == request_["context"]
            assert question.actions.ids == [action["id"] for action in request_["actions"]]
            assert msgspec.json.decode(question.actions.raw) == [a.get("features", {}) for a in request_["actions"]]
        assert read[3:] == asked[3:]


def test_the_same_bytes_are_parsed_once_and_other_bytes_are_other_actions() -> None:
    catalogues = Catalogues()
    text = b'[{"id":"a","features":{"x":1}},{"id":"b"}]'
    assert catalogues.of(text) is catalogues.of(bytes(bytearray(text)))
    assert catalogues.of(text.replace(b"1", b"2")) is not catalogues.of(text)


def held(catalogues: Catalogues) -> set[bytes]:
    return {*catalogues._young, *catalogues._old}


def test_what_is_held_is_bounded_and_the_latest_stays() -> None:
    catalogues = Catalogues()
    first = catalogues.of(b'[{"id":"kept"}]')
    for number in range(5_000):
        assert catalogues.of(b'[{"id":"a%d"}]' % number).ids == [f"a{number}"]
        assert catalogues.of(b'[{"id":"kept"}]') is first
    assert len(held(catalogues)) <= 1_000
    large = [b'[{"id":"%d","features":{"text":"%s"}}]' % (number, b"x" * 1_000) for number in range(20_000)]
    for text in large:
        catalogues.of(text)
    assert sum(map(len, held(catalogues))) <= 17 << 20


def test_no_number_is_refused_though_null_was_accepted_before() -> None:
    catalogues = Catalogues()
    absent: dict[str, Any] = {"x": None}
    question_of(DecideRequest({}, [Action("a", absent)]), catalogues)
    with pytest.raises(FieldError, match=r"actions\[0\].features.x: must be a finite number"):
        question_of(DecideRequest({}, [Action("a", {"x": math.nan})]), catalogues)
    with pytest.raises(FieldError, match=r"actions\[0\].features.x"):
        question_of(DecideRequest({}, [Action("a", {"x": object()})]), catalogues)


def test_excluded_actions_leave_the_others_as_they_were() -> None:
    catalogue = Catalogues().of(b'[{"id":"a","features":{"x":1}},{"id":"b"},{"id":"c","features":{"y": 2}}]')
    left = catalogue.without(["b", "never offered"])
    assert left is not None
    assert (left.ids, bytes(left.raw)) == (["a", "c"], b'[{"x":1},{"y": 2}]')
    assert catalogue.without(["b"]) is left
    assert catalogue.without(["never offered"]) is catalogue
    assert catalogue.without(["a", "b", "c"]) is None


def test_each_policy_gives_its_own_probabilities_however_often_they_are_swapped() -> None:
    oracle = LogisticOracle()
    oracle.fit(interactions_of(np.random.default_rng(5)))
    policies = [OraclePolicy(oracle, Exploration(kind=kind, rows=500.0)) for kind in ("falcon", "softmax", "thompson")]
    catalogue = Catalogues().of(b'[{"id":"a","features":{"colour":"red"}},{"id":"b","features":{"size":2}}]')
    context = flatten({"x": 0.5}, field="context")
    features = [flatten(json.loads(raw), field="a") for raw in (b'{"colour":"red"}', b'{"size":2}')]
    for policy in [*policies, UniformPolicy(), *policies, *reversed(policies)]:
        assert catalogue.pmfs_of(policy)([context]) == [policy.pmf(one(context, features, ["a", "b"])).tolist()]


def test_a_batch_is_read_question_by_question() -> None:
    catalogues = Catalogues()
    good = b'{"context":{},"actions":[{"id":"a"}]}'
    read = read_questions(b'{"decisions":[%s,{"context":{},"actions":[]},%s]}' % (good, good), catalogues)
    assert [isinstance(each, FieldError) for each in read] == [False, True, False]
    with pytest.raises(FieldError, match=r"decisions\[1\].context"):
        read_questions(b'{"decisions":[%s,{"context":3,"actions":[{"id":"a"}]}]}' % good, catalogues)
    with pytest.raises(FieldError, match="decisions: must be 1 to 1000 decisions, is 1001"):
        read_questions(b'{"decisions":[%s]}' % b",".join([good] * 1_001), catalogues)
