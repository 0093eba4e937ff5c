"""Policies as analysts write them: functions of one decision or of columns, and rules in TOML."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decision.errors import FieldError
from pipelines.replay.policies.answers import probabilities
from pipelines.replay.policies.conditions import condition
from pipelines.replay.policies.functions import OneByOne, OverColumns
from pipelines.replay.policies.rules import MAX_BYTES, Rules
from pipelines.replay.policies.trial import few_rows, tried
from pipelines.replay.policy import PolicySpec, python_policy
from pipelines.replay.replay import Options, replay_log
from pipelines.replay.report import replay_report
from pipelines.replay.source import TableSource
from tests.pipelines.replay.test_replay import log

CONTEXT = {"plan": "free", "age": 41, "user": {"vip": True, "score": 0.5}, "odd name": "x", "none": None, "one": 1}
ACTION = {"id": "a7", "kind": "clip", "price": 3}


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ('plan == "free"', True),
        ("plan != 'free'", False),
        ("age >= 41 and age < 42", True),
        ("not age > 40 or plan == 'paid'", False),
        ("not (age > 40 and plan == 'paid')", True),
        ("user.vip and user.score <= 5e-1", True),
        ("context.user.vip == true", True),
        ("`odd name` in ['y', 'x']", True),
        ("plan not in ['paid']", True),
        ("missing == 1 or missing < 1 or none == 1", False),
        ("missing != 1", True),
        ("one == true", False),  # in Python it would be
        ("age", False),  # only what is true holds alone
        ("action.kind == 'clip' and action.id == 'a7'", True),
        ("action.price > user.score", True),
        ("age == -41", False),
    ],
)
def test_conditions_hold_as_they_read(text: str, holds: bool) -> None:
    assert condition(text, "when").holds(CONTEXT, ACTION) is holds


@pytest.mark.parametrize(
    "text",
    [
        "plan = 'free'",
        "plan == ",
        "(plan == 'free'",
        "plan == 'free' plan",
        "3 < age",
        "__import__('os').system('x')",
        "plan == 'free",
        "age in 3",
        "age in []",
        "action == 'a'",
        "age not 3",
        "age == 3x",
        "(" * 50 + "age" + ")" * 50,
        "not " * 50 + "age",
        "age == 1 or " * 500 + "age",
    ],
)
def test_what_is_no_condition_is_refused_by_its_place(text: str) -> None:
    with pytest.raises(FieldError) as told:
        condition(text, "policy.rule[3].when")
    assert told.value.field == "policy.rule[3].when"


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from(["age", "user.vip", "and", "or", "not", "(", ")", "==", "<", "in", "[", "]", "3", "'x'"]))
)
def test_any_text_holds_or_not_or_is_an_error_of_its_field(words: list[str]) -> None:
    with contextlib.suppress(FieldError):
        assert condition(" ".join(words), "when").holds(CONTEXT, ACTION) in (True, False)


def test_an_order_of_a_text_and_a_number_is_an_error_and_not_a_guess() -> None:
    with pytest.raises(FieldError, match=r"'free' < 3.0 \(text and number\)"):
        condition("plan < 3", "when").holds(CONTEXT, ACTION)


def test_answers_are_ids_lists_or_mappings() -> None:
    ids = ["x", "y", "z"]
    assert probabilities("y", ids) == [0.0, 1.0, 0.0]
    assert probabilities(np.array([0.2, 0.3, 0.5]), ids) == [0.2, 0.3, 0.5]
    assert probabilities({"z": 1}, ids) == [0.0, 0.0, 1.0]


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ("zz", "did you mean 'z'"),
        ([0.5, 0.5], "is 2 of them"),
        ([0.5, 0.5, 0.5], "sum 1.5"),
        ([1.5, -0.5, 0.0], "action 'y', is -0.5"),
        ([float("nan"), 0.5, 0.5], "action 'x', is nan"),
        ([True, False, False], "must be a probability, is True"),
        (["1", "0", "0"], "must be a probability"),
        (None, "is missing"),
        (1, "an action's id, or 3 probabilities"),
        ({"x": 0.5, "w": 0.5}, "an action that was offered"),
    ],
)
def test_an_answer_that_is_no_distribution_says_what_is_wrong(answer: Any, says: str) -> None:
    with pytest.raises(FieldError) as told:
        probabilities(answer, ["x", "y", "z"])
    assert says in str(told.value)


def phones(n: int = 300) -> pa.Table:
    """Return a log whose contexts have a device and an hour, and whose actions a kind."""
    kinds = [{"kind": "text"}, {"kind": "clip", "len": 9}, {"kind": "text"}]
    contexts = [{"device": ["phone", "desk"][row % 2], "hour": row % 24} for row in range(n)]
    return log(n, context=[json.dumps(one) for one in contexts], actions=[json.dumps(kinds)] * n)


RULES = b"""
otherwise = "first"
[[rule]]
when = 'device == "phone" and hour >= 6'
action = "b"
[[rule]]
when = 'hour < 3'
among = 'action.kind == "text"'
share = 0.5
[[rule]]
action = "not offered"
"""


def one(context: dict[str, Any], actions: list[dict[str, Any]]) -> Any:
    if context["device"] == "phone" and context["hour"] >= 6:
        return "b"
    if context["hour"] < 3:
        text = [action["id"] for action in actions if action["features"]["kind"] == "text"]
        return {name: 0.25 + 0.5 * (name == actions[0]["id"]) for name in text}
    context.clear()  # what is handed out is the function's own
    return [1.0, 0.0, 0.0]


def many(columns: pa.Table) -> Any:
    device, hour = columns["context.device"].to_pylist(), columns["context.hour"].to_pylist()
    asked = [{"device": d, "hour": h} for d, h in zip(device, hour, strict=True)]
    kinds = ["text", "clip", "text"]
    return [
        one(context, [{"id": name, "features": {"kind": kind}} for name, kind in zip(ids, kinds, strict=True)])
        for context, ids in zip(asked, columns["action_ids"].to_pylist(), strict=True)
    ]


def test_rules_a_function_of_one_decision_and_one_of_columns_give_one_replay() -> None:
    rows = phones()
    specs = [
        PolicySpec(kind="rules", name="p", files={"p.toml": RULES}),
        PolicySpec(kind="python", name="p", path=f"{__name__}:one"),
        PolicySpec(kind="python", name="p", path=f"{__name__}:many"),
    ]
    options = Options(reward_model="means", replicates=0)
    found = [replay_log(TableSource(rows, rows=77), spec, options, log="news") for spec in specs]
    assert found[0] == found[1] == found[2]
    estimate = found[0].estimates["ips"]
    assert estimate is not None
    pmf = Rules(RULES).pmf_of_rows(rows).reshape(-1, 3)
    index = rows["action_index"].to_numpy()
    weight = pmf[np.arange(len(rows)), index] / rows["propensity"].to_numpy()
    assert estimate.value == pytest.approx(float((weight * rows["reward"].to_numpy()).mean()), abs=1e-12)


@pytest.mark.parametrize(
    ("text", "field"),
    [
        (b"[[rule]]\naction = 'a'\nwhen = 'device ='", "policy.rule[0].when"),
        (b"[[rule]]\nwhen = 'hour < 3'", "policy.rule[0]"),
        (b"[[rule]]\naction = 'a'\namong = 'action.kind == 1'", "policy.rule[0]"),
        (b"[[rule]]\naction = 'a'\nwhen = 'action.kind == 1'", "policy.rule[0].when"),
        (b"[[rule]]\naction = 'a'\nshare = 0", "policy"),
        (b"[[rule]]\naction = 'a'\nwhenn = ''", "policy"),
        (b"rule = []", "policy"),
        (b"\xff", "policy"),
        (b"#" * (MAX_BYTES + 1), "policy"),
    ],
)
def test_rules_that_cannot_be_read_are_named(text: bytes, field: str) -> None:
    with pytest.raises(FieldError) as told:
        Rules(text)
    assert told.value.field == field


def test_a_rule_on_what_no_decision_has_is_refused_before_anything_is_computed() -> None:
    rules = b"[[rule]]\nwhen = 'devise == \"phone\"'\naction = 'b'"
    spec = PolicySpec(kind="rules", name="p", files={"p.toml": rules})
    with pytest.raises(FieldError, match="'devise'") as told:
        replay_log(TableSource(phones(30)), spec, Options(reward_model="none"), log="news")
    assert told.value.field == "policy"


def test_a_report_says_which_estimates_are_apart_and_still_trusts_the_first() -> None:
    rows = phones(1_500)
    paid = [float(row % 2 == 0 and index == 1) for row, index in enumerate(rows["action_index"].to_pylist())]
    rows = rows.set_column(rows.column_names.index("reward"), "reward", pa.array(paid))
    spec = PolicySpec(kind="rules", name="p", files={"p.toml": RULES})
    found = replay_log(TableSource(rows), spec, Options(reward_model="means", replicates=0), log="news")
    assert "dm" in found.apart  # means of actions know nothing of phones
    page = replay_report(found)
    assert f"Further from dr than both intervals allow: {', '.join(found.apart)}." in page
    assert ("Nothing speaks against the estimate to read first." in page) == found.trusted
    assert "Nothing speaks against these estimates." not in page


def test_a_trial_shows_each_row_and_no_mistake_hides_another() -> None:
    def careless(context: dict[str, Any], actions: list[dict[str, Any]]) -> Any:
        if context["hour"] % 2:
            return [0.5] * len(actions)
        return {"a": 1 / (context["hour"] - 2)}

    rows = phones(10)
    found = tried(OneByOne(careless, "careless"), few_rows(TableSource(rows)), name="careless", log="news")
    assert [row.event_id for row in found.rows] == [f"e{row}" for row in range(10)]
    assert found.rows[0].actions[1] == {"id": "b", "features": {"kind": "clip", "len": 9}}
    assert "event 'e2': careless raised ZeroDivisionError: division by zero (test_policies.py, line " in str(
        found.rows[2].mistake
    )
    assert sum("sum 1.5" in text and "(and in 4 more rows)" in text for text in found.mistakes) == 1
    good = tried(OneByOne(one, "one"), rows, name="one", log="news")
    assert good.mistakes == []
    wanted = [0.75, 0.0, 0.25]
    assert good.rows[1].probabilities == wanted
    assert good.rows[1].weight == wanted[rows["action_index"][1].as_py()] / rows["propensity"][1].as_py()


def test_a_trial_tells_of_names_that_no_row_has() -> None:
    rules = b"[[rule]]\nwhen = 'devise == \"phone\"'\namong = 'action.kindd == 1'\n[[rule]]\naction = 'bb'"
    found = tried(Rules(rules), phones(5), name="rules", log="news")
    assert [text.rpartition("; ")[2] for text in found.mistakes] == [
        "did you mean 'device'?",
        "did you mean 'kind'?",
        "did you mean 'b'?",
    ]


def test_a_function_is_named_by_its_file_too_and_what_the_file_raises_is_told(tmp_path: Path) -> None:
    (tmp_path / "beside_it.py").write_text("CHOICE = 'b'\n")
    (tmp_path / "random.py").write_text("from beside_it import CHOICE\ndef policy(context, actions): return CHOICE\n")
    (tmp_path / "broken.py").write_text("1 / 0\n")
    found = python_policy(f"{tmp_path}/random.py:policy")  # and not the library of that name
    assert isinstance(found, OneByOne)
    rows = phones(3)
    assert found.pmf_of_rows(rows).tolist() == OneByOne(lambda context, actions: "b", "b").pmf_of_rows(rows).tolist()
    for path, told in (
        ("random.py:other", "no attribute 'other'"),
        ("broken.py:policy", "ZeroDivisionError: division by zero"),
        ("absent.py:policy", "No such file"),
    ):
        with pytest.raises(FieldError, match=told):
            python_policy(f"{tmp_path}/{path}")


def test_a_policy_beside_a_file_with_a_librarys_name_leaves_the_library_to_all_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "colorsys.py").write_text("CHOICE = 'b'\n")
    (tmp_path / "later.py").write_text("CHOICE = 'a'\n")
    (tmp_path / "mine.py").write_text("def policy(context, actions):\n    import later\n    return later.CHOICE\n")
    found = python_policy(f"{tmp_path}/mine.py:policy")
    assert found.pmf_of_rows(phones(1))[0] == 1.0
    asked = [sys.executable, "-P", "-c", "import colorsys; print(colorsys.__file__)"]
    environment = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    told = subprocess.run(asked, env=environment, capture_output=True, text=True, check=True).stdout
    assert not told.startswith(str(tmp_path))


def test_functions_are_told_apart_by_their_arguments() -> None:
    assert isinstance(python_policy(f"{__name__}:one"), OneByOne)
    assert isinstance(python_policy(f"{__name__}:many"), OverColumns)
    with pytest.raises(FieldError, match="10 answers, one for each row"):
        OverColumns(lambda columns: ["a"], "short").pmf_of_rows(phones(10))
