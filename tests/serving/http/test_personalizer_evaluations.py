"""Evaluations through Personalizer's paths: asked for, listed, read in either shape, taken over, deleted."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pipelines.operations import evaluations
from pipelines.settings import load_loop
from pipelines.state.state import State
from tests.serving.http.test_app import Caller, open_at
from tests.serving.http.test_personalizer import refused

OLD, NEW = "/personalizer/v1.0/evaluations", "/personalizer/evaluations"
APPLY = "/personalizer/v1.1-preview.3/configurations/applyFromEvaluation"
BAGS = {"name": "bags", "arguments": "--cb_explore_adf --bag 7"}
ASKED = {"name": "May", "startTime": "2026-05-01T00:00:00", "endTime": "2026-06-01T02:00:00+02:00", "policies": [BAGS]}


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Caller]:
    monkeypatch.setattr(evaluations, "start", lambda *of: None)
    core = open_at(tmp_path)
    yield Caller(core)
    core.close()


def finish(call: Caller, id: str, **fields: Any) -> None:
    """Write what an evaluation's process would have found."""
    judged = [
        evaluations.Judged(
            name="bags",
            arguments=BAGS["arguments"],
            origin="Custom",
            rows=200,
            value=0.5,
            low=0.4,
            high=0.7,
            ips=0.45,
            mean_weight=0.9,
            reasons=[],
            trend=[evaluations.Moment(until="2026-05-09T00:00:00+00:00", low=0.1, high=0.9)],
        ),
        evaluations.Judged(
            name="Online Policy",
            arguments="",
            origin="Online",
            rows=200,
            value=None,
            low=None,
            high=None,
            ips=None,
            mean_weight=0.0,
            reasons=["no support"],
            trend=[],
        ),
    ]
    with State(call.core.settings.state_url) as state:
        key = f"{evaluations.PREFIX}news/{id}"
        entry = state.get(key)
        assert entry is not None
        one = msgspec.json.decode(entry.value, type=evaluations.Evaluation)
        done = msgspec.structs.replace(one, **{"status": "completed", "judged": judged, **fields})
        state.put({key: (entry.version, msgspec.json.encode(done))})


def test_an_evaluation_is_made_with_an_id_and_its_place(call: Caller) -> None:
    made = call("POST", OLD, ASKED)
    assert made.status_code == 201
    body = made.json()
    assert made.headers["location"] == f"{OLD}/{body['id']}"
    assert (body["status"], body["name"], body["policyResults"]) == ("pending", "May", None)
    assert datetime.fromisoformat(body["startTime"]) == datetime.fromisoformat("2026-05-01T00:00:00+00:00")
    assert datetime.fromisoformat(body["endTime"]) == datetime.fromisoformat("2026-06-01T00:00:00+00:00")
    assert call("GET", made.headers["location"]).json() == body
    assert call("GET", OLD).json() == [body]


def test_our_figures_stand_in_their_fields_in_either_shape(call: Caller) -> None:
    assert call("PUT", f"{NEW}/may", ASKED).json()["status"] == "Running"
    finish(call, "may")
    old = call("GET", f"{OLD}/may").json()
    assert (old["status"], old["optimalPolicy"]) == ("completed", "bags")
    bags, online = (one["totalSummary"] for one in old["policyResults"])
    assert bags["averageReward"] == 0.5
    assert bags["confidenceInterval"] == pytest.approx(0.15)
    assert bags["ipsEstimatorNumerator"] / bags["ipsEstimatorDenominator"] == pytest.approx(0.45)
    assert bags["ipsEstimatorNumerator"] / bags["snipsEstimatorDenominator"] == pytest.approx(0.5)
    assert (online["averageReward"], online["confidenceInterval"]) == (None, None)
    new = call("GET", f"{NEW}/may?startTime=2026-05-01T00:00:00Z&endTime=2026-06-01T00:00:00Z").json()
    assert new["status"] == "Succeeded"
    assert new["content"]["intervalInMinutes"] == 31 * 24 * 60
    value = new["content"]["value"][0]
    assert (value["policySource"], value["summary"]) == (
        "Custom",
        {"expectedReward": 0.5, "confidenceInterval": [0.4, 0.7]},
    )
    assert value["timeseries"]["data"][0]["confidenceInterval"] == [0.1, 0.9]


def test_lists_are_the_latest_first_and_by_pages(call: Caller) -> None:
    for number in range(4):
        assert call("PUT", f"{NEW}/e{number}", ASKED).status_code == 200
        finish(call, f"e{number}")
    ids = [one["id"] for one in call("GET", NEW).json()["value"]]
    assert ids == ["e3", "e2", "e1", "e0"]
    assert [one["id"] for one in call("GET", f"{NEW}?top=2&skip=1").json()["value"]] == ["e2", "e1"]
    assert refused(call("GET", f"{NEW}?top=many"))[:2] == (400, "InvalidRequest")


def test_what_was_deleted_is_gone(call: Caller) -> None:
    call("PUT", f"{NEW}/a%2Fb", ASKED)
    assert call("GET", f"{OLD}/a%2Fb").json()["id"] == "a/b"
    assert call("DELETE", f"{OLD}/a%2Fb").status_code == 204
    for method in ("GET", "DELETE"):
        assert refused(call(method, f"{OLD}/a%2Fb"))[:2] == (404, "EvaluationNotFound")


def test_the_settings_of_an_evaluation_are_taken_over_once_it_is_completed(call: Caller) -> None:
    call("PUT", f"{NEW}/may", ASKED)
    reference = {"evaluationId": "may", "policyName": "bags"}
    assert refused(call("POST", APPLY, reference))[:2] == (400, "InvalidRequest")
    finish(call, "may")
    other = refused(call("POST", APPLY, {**reference, "policyName": "Random Policy"}))
    assert other == (404, "LearningSettingsNotFound", "policyName")
    assert refused(call("POST", APPLY, {**reference, "evaluationId": "june"}))[:2] == (404, "EvaluationNotFound")
    assert load_loop(call.core.settings, "news", {}).policy.bag == 1
    assert call("POST", APPLY, reference).status_code == 204
    policy = load_loop(call.core.settings, "news", {}).policy
    assert (policy.oracle, policy.exploration, policy.bag) == ("vw", "thompson", 7)


def test_an_evaluation_that_failed_says_why(call: Caller) -> None:
    call("PUT", f"{NEW}/may", ASKED)
    finish(call, "may", status="failed", judged=[], reason="there are no rows")
    assert call("GET", f"{NEW}/may").json()["description"] == "there are no rows"
    old = call("GET", f"{OLD}/may").json()
    assert (old["status"], old["policyResults"], old["description"]) == ("failed", None, "there are no rows")


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"startTime": "yesterday"}, 400, "InvalidEvaluationContract"),
        ({"startTime": "2026-07-01T00:00:00Z"}, 400, "InvalidEvaluationContract"),
        ({"endTime": None}, 400, "InvalidEvaluationContract"),
        ({"startTime": "0001-01-01T00:00:00+23:59"}, 400, "InvalidEvaluationContract"),
        ({"policies": [BAGS, BAGS]}, 400, "DuplicateCustomPolicyNames"),
        ({"policies": [{**BAGS, "arguments": "--cb_explore_adf --cover 3"}]}, 400, "InvalidPolicyConfiguration"),
        ({"policies": [{**BAGS, "name": str(i)} for i in range(11)]}, 400, "InvalidEvaluationContract"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_at_once(call: Caller, change: Any, status: int, code: str) -> None:
    assert refused(call("POST", OLD, ASKED | change))[:2] == (status, code)
    assert call("GET", OLD).json() == []


def test_another_question_under_an_id_is_refused_and_the_same_is_answered_again(call: Caller) -> None:
    first = call("PUT", f"{NEW}/may", ASKED).json()
    assert call("PUT", f"{NEW}/may", ASKED).json() == first
    assert refused(call("PUT", f"{NEW}/may", ASKED | {"name": "June"}))[:2] == (409, "InvalidEvaluationContract")


def test_too_many_at_once_are_told_to_wait(call: Caller) -> None:
    for _ in range(evaluations.MOST_AT_ONCE):
        assert call("POST", OLD, ASKED).status_code == 201
    assert refused(call("POST", OLD, ASKED))[:2] == (429, "429")
