"""Personalizer's administration: settings mapped both ways, what a loop has, and what is refused with another way."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pipelines.ingestion.ingest import ingest
from pipelines.operations.installation import Installation
from pipelines.settings import LoopSettings, load_loop, parse_loop
from serving.http.personalizer import refusals
from serving.http.personalizer.learning import contract_of, values_of
from tests.serving.http.test_app import Caller, open_at
from tests.serving.http.test_personalizer import ASKED, refused

PLACE = "/personalizer/v1.1-preview.3"
SERVICE, POLICY = f"{PLACE}/configurations/service", f"{PLACE}/configurations/policy"
OWN = """
[reward]
window_s = 900
default = -0.5
aggregation = "latest"
[baseline]
explore = 0.1
[training]
days = 30
"""


@pytest.fixture
def call(tmp_path: Path) -> Iterator[Caller]:
    core = open_at(tmp_path, OWN)
    yield Caller(core)
    core.close()


def loop_of(call: Caller) -> LoopSettings:
    return load_loop(call.core.settings, "news", {})


def test_the_configuration_tells_the_loops_settings(call: Caller) -> None:
    found = call("GET", SERVICE).json()
    assert datetime.fromisoformat(found.pop("lastConfigurationEditDate")).tzinfo is not None
    assert found == {
        "rewardWaitTime": "PT900S",
        "defaultReward": -0.5,
        "rewardAggregation": "latest",
        "explorationPercentage": 0.1,
        "modelExportFrequency": "PT1S",
        "logRetentionDays": -1,
        "modelRetrainDays": 30.0,
        "learningMode": "Online",
        "logMirrorEnabled": False,
        "isAutoOptimizationEnabled": False,
    }


def test_what_was_read_may_be_sent_back_and_changes_nothing(call: Caller) -> None:
    before = loop_of(call)
    read = call("GET", SERVICE).json()
    again = call("PUT", SERVICE, read)
    assert (again.status_code, again.json()) == (200, read)
    assert loop_of(call) == before


def test_an_update_changes_the_loops_settings_and_no_other(call: Caller) -> None:
    before = msgspec.to_builtins(loop_of(call))
    update = {
        "rewardWaitTime": "PT1H30M",
        "defaultReward": 0.25,
        "rewardAggregation": "earliest",
        "explorationPercentage": 0.35,
        "modelExportFrequency": "PT5M",
        "logRetentionDays": -1,
        "modelRetrainDays": 7,
        "learningMode": "Apprentice",
        "favouriteColour": "blue",
    }
    answer = call("PUT", SERVICE, update)
    assert answer.status_code == 200, answer.text
    loop = loop_of(call)
    assert timedelta(seconds=loop.reward.window_s) == timedelta(hours=1, minutes=30)
    assert (loop.reward.default, loop.reward.aggregation) == (0.25, "earliest")
    assert (loop.baseline.explore, loop.training.days, loop.mode) == (0.35, 7.0, "apprentice")
    for section in before:
        if section not in ("reward", "baseline", "training", "mode"):
            assert msgspec.to_builtins(loop)[section] == before[section]
    read = call("GET", SERVICE).json()
    assert read == answer.json()
    assert (read["learningMode"], read["rewardWaitTime"]) == ("Apprentice", "PT5400S")


def test_a_running_service_does_what_the_update_says(call: Caller) -> None:
    assert call("PUT", SERVICE, {"learningMode": "Apprentice"}).status_code == 200
    call.core.loops.refresh()
    answers = {call("POST", f"{PLACE}/rank", ASKED).json()["rewardActionId"] for _ in range(30)}
    assert answers == {"soup"}


def test_the_percentage_is_the_rules_own_where_the_rule_has_one(tmp_path: Path) -> None:
    core = open_at(tmp_path, '[policy]\nexploration = "epsilon_greedy"\n')
    call = Caller(core)
    try:
        assert call("PUT", SERVICE, {"explorationPercentage": 0.4}).json()["explorationPercentage"] == 0.4
        assert loop_of(call).policy.epsilon == loop_of(call).baseline.explore == 0.4
    finally:
        core.close()


@pytest.mark.parametrize(
    ("update", "code", "target", "instead"),
    [
        ({"rewardWaitTime": "PT4S"}, "InvalidRewardWaitTime", "rewardWaitTime", "reward.window_s"),
        ({"rewardWaitTime": "P3D"}, "InvalidRewardWaitTime", "rewardWaitTime", "2 days"),
        ({"rewardWaitTime": "soon"}, "InvalidServiceConfiguration", "rewardWaitTime", ""),
        ({"defaultReward": 1.5}, "InvalidServiceConfiguration", "defaultReward", "-1 to 1"),
        ({"rewardAggregation": "median"}, "InvalidServiceConfiguration", "reward.aggregation", "earliest"),
        ({"explorationPercentage": 20}, "InvalidServiceConfiguration", "explorationPercentage", "0 to 1"),
        ({"modelExportFrequency": "PT0.5S"}, "InvalidServiceConfiguration", "modelExportFrequency", "RELOAD_S"),
        ({"logRetentionDays": 90}, "InvalidLogRetentionDays", "logRetentionDays", "decision erase"),
        ({"logMirrorEnabled": True}, "InvalidServiceConfiguration", "logMirrorEnabled", "decision export"),
        ({"isAutoOptimizationEnabled": True}, "InvalidServiceConfiguration", "isAutoOptimizationEnabled", "variants"),
        ({"learningMode": "Hybrid"}, "InvalidLearningModeServiceConfiguration", "learningMode", "LoggingOnly"),
    ],
)
def test_what_cannot_be_put_into_force_is_refused_and_changes_nothing(
    call: Caller, update: dict[str, Any], code: str, target: str, instead: str
) -> None:
    before = loop_of(call)
    answer = call("PUT", SERVICE, {"explorationPercentage": 0.3, **update})
    assert refused(answer) == (400, code, target)
    assert instead in answer.json()["error"]["message"]
    assert loop_of(call) == before


def test_a_value_of_the_environment_is_not_changed(call: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DECISION_LOOP_NEWS__REWARD__WINDOW_S", "60")
    answer = call("PUT", SERVICE, {"rewardWaitTime": "PT2M"})
    assert refused(answer)[:2] == (400, "InvalidServiceConfiguration")
    assert "environment" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (
            "--cb_explore_adf --epsilon 0.20000000298023224 --power_t 0 -l 0.001 --cb_type mtr -q ::",
            {"exploration": "epsilon_greedy", "learning_rate": 0.001, "interactions": True, "bits": 18},
        ),
        ("--cb_explore_adf --squarecb --learning_rate=0.1 -b 20", {"exploration": "squarecb", "bits": 20}),
        ("--cb_explore_adf --regcb", {"exploration": "regcb", "interactions": False}),
        ("--quiet --cb_explore_adf --bag 5 --interactions ::", {"exploration": "thompson", "bag": 5}),
    ],
)
def test_vws_arguments_set_the_policy_and_are_read_back(call: Caller, arguments: str, wanted: dict[str, Any]) -> None:
    answer = call("PUT", POLICY, {"name": "mine", "arguments": arguments})
    assert answer.status_code == 200, answer.text
    policy = loop_of(call).policy
    assert policy.oracle == "vw"
    assert {name: getattr(policy, name) for name in wanted} == wanted
    assert call("GET", POLICY).json() == answer.json()
    assert call("PUT", POLICY, answer.json()).json() == answer.json()
    assert loop_of(call).policy == policy


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ("--epsilon 0.2", "--cb_explore_adf"),
        ("--cb_explore_adf --cover 3", "--cover"),
        ("--cb_explore_adf --cb_type dr", "--cb_type mtr"),
        ("--cb_explore_adf --power_t 0.5", "--power_t 0"),
        ("--cb_explore_adf --squarecb --gamma_scale 10", "policy.gamma"),
        ("--cb_explore_adf --bag 3 --regcb", "--bag and --regcb"),
        ("--cb_explore_adf --bag 3 --epsilon 0.1", "--epsilon"),
        ("--cb_explore_adf -l", "-l"),
        ("--cb_explore_adf -l fast", "-l"),
        ("--cb_explore_adf -b 18.5", "-b"),
        ("--cb_explore_adf -b 40", "bits"),
        ("--cb_explore_adf --epsilon 1e99", "--epsilon"),
        ("--cb_explore_adf 'open", "words"),
        ("--oracle nonsense", "policy.oracle"),
        ("--oracle vw --colour blue", "--colour"),
        ("x" * 5_000, "4096"),
    ],
)
def test_an_argument_that_is_no_learners_here_is_refused_by_its_name(call: Caller, arguments: str, named: str) -> None:
    before = loop_of(call)
    answer = call("PUT", POLICY, {"name": "mine", "arguments": arguments})
    status, code, _ = refused(answer)
    assert (status, code) in [(400, "InvalidPolicyConfiguration"), (400, "InvalidPolicyContract")]
    assert named in answer.json()["error"]["message"]
    assert loop_of(call) == before


@pytest.mark.parametrize("text", ["", '[policy]\noracle = "linear"\nbag = 3\nfloor = 0.2\naction_ids = false\n'])
def test_what_vw_has_no_argument_for_stands_under_our_own_names_and_is_read_back(text: str) -> None:
    loop = parse_loop(text, "news", {})
    values = values_of(contract_of(loop).arguments)
    assert values == {f"policy.{name}": value for name, value in msgspec.to_builtins(loop.policy).items()}


def test_a_reset_takes_the_policy_back_to_what_ships(call: Caller) -> None:
    call("PUT", POLICY, {"name": "mine", "arguments": "--cb_explore_adf --bag 5 --passes 9"})
    before = loop_of(call)
    assert (before.policy.bag, before.training.passes) == (5, 9)
    answer = call("DELETE", POLICY)
    assert answer.status_code == 200
    assert loop_of(call).policy == LoopSettings(name="news").policy
    assert loop_of(call).training.passes == LoopSettings(name="news").training.passes
    assert loop_of(call).reward == before.reward
    assert answer.json() == call("GET", POLICY).json()


def test_logs_tell_from_when_to_when_once_they_are_in_the_lake(call: Caller) -> None:
    assert refused(call("GET", f"{PLACE}/logs/properties"))[:2] == (404, "LogsPropertiesNotFound")
    for _ in range(3):
        call("POST", f"{PLACE}/rank", ASKED)
    parts = Installation(call.core.settings)
    ingest(parts.log, parts.lake)
    times = parts.lake.decisions("news")["ts"].to_pylist()
    found = call("GET", f"{PLACE}/logs/properties").json()["dateRange"]
    assert abs(datetime.fromisoformat(found["from"]) - min(times)) < timedelta(milliseconds=1)
    assert abs(datetime.fromisoformat(found["to"]) - max(times)) < timedelta(milliseconds=1)
    parts.log.close()


def test_without_a_version_in_charge_there_is_no_model_and_a_reset_changes_nothing(call: Caller) -> None:
    for path in ("/model", "/model/properties"):
        assert refused(call("GET", f"{PLACE}{path}"))[:2] == (404, "ResourceNotFound")
    assert call("DELETE", f"{PLACE}/model").status_code == 204


@pytest.mark.parametrize("route", refusals.ROUTES, ids=lambda route: route.name)
def test_what_is_not_done_says_what_to_use_instead(call: Caller, route: Any) -> None:
    answer = call(route.method, route.path.replace("{importance_id}", "i1"), b"any body")
    assert refused(answer) == (400, refusals.NOT_DONE, None)
    message = answer.json()["error"]["message"]
    assert "`decision " in message or "/v1/loops/" in message
