"""Personalizer's contract: every version's paths, what they tolerate, what they answer and how they refuse."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from decision.records import decode_decision
from serving.http.personalizer.addresses import IN_QUERY, VERSIONS
from tests.serving.http.test_app import Caller, open_at

PLACES = [*(f"/personalizer/{version}" for version in VERSIONS), "/personalizer"]
ASKED: dict[str, Any] = {
    "contextFeatures": [{"device": "phone"}, {"hour": 21}],
    "actions": [
        {"id": "soup", "features": [{"hot": True}]},
        {"id": "salad", "features": [{"hot": False}, {"price": 7.5}]},
        {"id": "stew", "features": []},
    ],
}
SLOTS: list[dict[str, Any]] = [
    {"id": "left", "baselineAction": "stew"},
    {"id": "right", "baselineAction": "soup", "excludedActions": ["salad"]},
]


@pytest.fixture(scope="module")
def call(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Caller]:
    core = open_at(tmp_path_factory.mktemp("home"))
    yield Caller(core)
    core.close()


def refused(answer: Any) -> tuple[int, str, str | None]:
    """Return status, code and target of an error, after checking its shape."""
    assert answer.headers["content-type"] == "application/json"
    assert answer.json().keys() == {"error"}
    error = answer.json()["error"]
    assert {"code", "message"} <= error.keys() <= {"code", "message", "target"}
    assert error["message"]
    return answer.status_code, error["code"], error.get("target")


@pytest.mark.parametrize("place", PLACES + [f"/loops/news{place}" for place in PLACES])
def test_every_version_ranks_rewards_and_activates_one_slot_and_many(call: Caller, place: str) -> None:
    version = "" if place.rpartition("/")[2] in VERSIONS else f"?api-version={IN_QUERY}"
    one = call("POST", f"{place}/rank{version}", ASKED | {"deferActivation": True})
    assert one.status_code == 201
    events = f"{place}/events/{one.json()['eventId']}"
    assert call("POST", f"{events}/activate{version}").status_code == 204
    assert call("POST", f"{events}/reward{version}", {"value": -0.25}).status_code == 204
    many = call("POST", f"{place}/multislot/rank{version}", ASKED | {"slots": SLOTS})
    assert many.status_code == 201
    assert [slot["id"] for slot in many.json()["slots"]] == ["left", "right"]
    events = f"{place}/multislot/events/{many.json()['eventId']}"
    assert call("POST", f"{events}/activate{version}").status_code == 204
    rewards = {"reward": [{"slotId": "right", "value": 1}]}
    assert call("POST", f"{events}/reward{version}", rewards).status_code == 204


def test_excluded_actions_keep_their_place_in_the_ranking_with_probability_0(call: Caller) -> None:
    answer = call("POST", "/personalizer/v1.0/rank", ASKED | {"excludedActions": ["soup"], "eventId": "no soup"}).json()
    assert answer["ranking"][0] == {"id": "soup", "probability": 0.0}
    assert answer["ranking"][1]["id"] == answer["rewardActionId"]
    assert {each["id"] for each in answer["ranking"][1:]} == {"salad", "stew"}
    assert sum(each["probability"] for each in answer["ranking"]) == pytest.approx(1.0)
    (message,) = call.logged("no soup")
    assert decode_decision(message.value).action_ids == ["salad", "stew"]


def test_what_is_optional_may_be_null_and_what_is_unknown_is_passed_over(call: Caller) -> None:
    one = {"contextFeatures": None, "excludedActions": None, "eventId": None, "deferActivation": None, "flavour": 3}
    one |= {"actions": [{"id": "a", "features": None, "title": "A"}, {"id": "b"}]}
    assert call("POST", "/personalizer/v1.0/rank", one).status_code == 201
    slots = [{"id": "top", "baselineAction": "b", "features": None, "excludedActions": None, "size": "large"}]
    many = call("POST", "/personalizer/v1.1-preview.3/multislot/rank", one | {"slots": slots})
    assert many.status_code == 201
    reward = {"reward": [{"slotId": "top", "value": 0.5, "currency": "EUR"}], "source": "shop"}
    events = f"/personalizer/v1.1-preview.3/multislot/events/{many.json()['eventId']}"
    assert call("POST", f"{events}/reward", reward).status_code == 204


def many_actions(number: int) -> list[dict[str, Any]]:
    return [{"id": f"a{i}", "features": []} for i in range(number)]


@pytest.mark.parametrize(
    ("path", "body", "status", "code", "target"),
    [
        ("/rank", b"{", 400, "BadRequest", "body"),
        ("/rank", {"contextFeatures": []}, 400, "InvalidRankRequest", "actions"),
        ("/rank", {"actions": []}, 400, "InvalidRankRequest", "actions"),
        ("/rank", {"actions": many_actions(51)}, 400, "InvalidRankRequest", "actions"),
        ("/rank", {"actions": many_actions(2) + many_actions(1)}, 400, "InvalidRankRequest", "actions[2].id"),
        ("/rank", ASKED | {"eventId": "x" * 257}, 400, "InvalidRankRequest", "eventId"),
        ("/rank", ASKED | {"contextFeatures": {"a": 1}}, 400, "InvalidRankRequest", "contextFeatures"),
        ("/rank", ASKED | {"contextFeatures": [{"n": 1e16}]}, 400, "InvalidRankRequest", "contextFeatures.n"),
        ("/rank", ASKED | {"excludedActions": ["soup", "salad", "stew"]}, 400, "InvalidRankRequest", "excludedActions"),
        ("/events/e/reward", {"value": 1.01}, 400, "InvalidRewardRequest", "value"),
        ("/events/e/reward", {"value": -7}, 400, "InvalidRewardRequest", "value"),
        ("/events/e/reward", b'{"value": NaN}', 400, "InvalidRewardRequest", "value"),
        ("/events/e/reward", {"value": "1"}, 400, "InvalidRewardRequest", "value"),
        ("/events/e/reward", {}, 400, "InvalidRewardRequest", "value"),
        (f"/events/{'x' * 257}/activate", None, 400, "InvalidEventIdToActivate", "eventId"),
        ("/multislot/rank", ASKED, 400, "InvalidRankRequest", "slots"),
        ("/multislot/rank", ASKED | {"slots": []}, 400, "InvalidRankRequest", "slots"),
        (
            "/multislot/rank",
            ASKED | {"slots": [{"id": "top", "baselineAction": "cake"}]},
            400,
            "InvalidRankRequest",
            "slots[0].baselineAction",
        ),
        (
            "/multislot/events/e/reward",
            {"reward": [{"slotId": "left", "value": 1}, {"slotId": "right", "value": 2}]},
            400,
            "InvalidRewardRequest",
            "reward[1].value",
        ),
        ("/multislot/events/e/reward", {"reward": []}, 400, "InvalidRewardRequest", "reward"),
        ("/rank", b" " * (2 << 20), 413, "PayloadSizeExceeded", "body"),
        ("/ranks", {}, 404, "ResourceNotFound", None),
        ("/rank?api-version=2031-01-01", ASKED, 400, "InvalidRequest", None),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_a_refusal_has_personalizers_status_code_and_shape(
    call: Caller, path: str, body: Any, status: int, code: str, target: str | None
) -> None:
    answer = call("POST", f"/personalizer/v1.1-preview.3{path}", body)
    assert refused(answer) == (status, code, target)
    message = answer.json()["error"]["message"]
    assert "_" not in message, message
    assert call.logged("e") == []


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("POST", "/personalizer/v9/rank", 404, "ResourceNotFound"),
        ("POST", "/personalizer/", 404, "ResourceNotFound"),
        ("GET", "/personalizer/v1.0/rank", 405, "OperationNotAllowed"),
        ("POST", "/loops/nobodys/personalizer/v1.0/rank", 404, "ResourceNotFound"),
    ],
)
def test_what_does_not_exist_is_told_of_in_the_same_shape(
    call: Caller, method: str, path: str, status: int, code: str
) -> None:
    assert refused(call(method, path, ASKED if method == "POST" else None))[:2] == (status, code)


def test_the_services_own_paths_keep_their_problem_documents(call: Caller) -> None:
    answer = call("POST", "/v1/loops/news/decide", ASKED)
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    assert call("POST", "/loops/news", {}).headers["content-type"] == "application/problem+json"


def test_an_event_id_names_one_rank_call_and_another_one_under_it_is_refused(call: Caller) -> None:
    first = call("POST", "/personalizer/v1.0/rank", ASKED | {"eventId": "one", "excludedActions": ["salad"]})
    again = call("POST", "/personalizer/v1.0/rank", ASKED | {"eventId": "one", "excludedActions": ["salad"]})
    assert again.json() == first.json()
    other = call("POST", "/personalizer/v1.0/rank", ASKED | {"eventId": "one"})
    assert refused(other) == (409, "InvalidRankRequest", "eventId")
    assert len(call.logged("one")) == 1


def test_who_shows_no_key_or_lacks_the_role_is_told_as_the_gateway_did(tmp_path: Path) -> None:
    core = open_at(tmp_path, api_keys="right")
    keyed = Caller(core)
    try:
        for headers in ({}, {"ocp-apim-subscription-key": "wrong"}):
            assert refused(keyed("POST", "/personalizer/v1.0/rank", ASKED, **headers)) == (401, "401", None)
        given = {"ocp-apim-subscription-key": "right"}
        assert keyed("POST", "/personalizer/v1.0/rank", ASKED, **given).status_code == 201
    finally:
        core.close()


def test_in_apprentice_mode_the_first_action_that_is_not_excluded_is_returned_always(tmp_path: Path) -> None:
    core = open_at(tmp_path, 'mode = "apprentice"\n')
    call = Caller(core)
    try:
        for number in range(40):
            asked = ASKED | {"eventId": f"learning-{number}"}
            assert call("POST", "/personalizer/v1.0/rank", asked).json()["rewardActionId"] == "soup"
        asked = ASKED | {"excludedActions": ["soup"]}
        assert call("POST", "/personalizer/v1.0/rank", asked).json()["rewardActionId"] == "salad"
        for number in range(20):
            asked = ASKED | {"slots": SLOTS, "eventId": f"learning-slots-{number}"}
            answer = call("POST", "/personalizer/v1.1-preview.1/multislot/rank", asked).json()
            assert [slot["rewardActionId"] for slot in answer["slots"]] == ["stew", "soup"]
    finally:
        core.close()


def loops_at(home: Path, loops: dict[str, str]) -> Caller:
    for name, text in loops.items():
        path = home / "loops" / name / "loop.toml"
        path.parent.mkdir(parents=True)
        path.write_text(text)
    return Caller(open_at(home, loops.get("news", "")))


def decided_in(call: Caller, answer: Any) -> str:
    assert answer.status_code == 201, answer.text
    (message,) = call.logged(answer.json()["eventId"])
    return decode_decision(message.value).loop


def test_a_loop_is_found_by_path_header_or_host(tmp_path: Path) -> None:
    hosts = {"shop": 'hosts = ["shop.example.com", "basket.example.com"]\n', "films": 'hosts = ["films.example.com"]\n'}
    call = loops_at(tmp_path, {"news": "", **hosts})
    rank = "/personalizer/v1.0/rank"
    try:
        assert decided_in(call, call("POST", f"/loops/films{rank}", ASKED)) == "films"
        assert decided_in(call, call("POST", rank, ASKED, x_decision_loop="news")) == "news"
        for host in ("shop.example.com", "Basket.Example.com:8080"):
            assert decided_in(call, call("POST", rank, ASKED, host=host)) == "shop"
        both = call("POST", rank, ASKED, host="shop.example.com", x_decision_loop="films")
        assert decided_in(call, both) == "films"
        nobody = call("POST", rank, ASKED, host="other.example.com")
        assert refused(nobody) == (404, "ResourceNotFound", "X-Decision-Loop")
        assert "/loops/LOOP/personalizer" in nobody.json()["error"]["message"]
    finally:
        call.core.close()


def test_a_host_that_two_loops_claim_leads_to_neither(tmp_path: Path) -> None:
    same = 'hosts = ["shared.example.com"]\n'
    call = loops_at(tmp_path, {"news": same, "shop": same})
    try:
        answer = call("POST", "/personalizer/v1.0/rank", ASKED, host="shared.example.com")
        assert refused(answer)[0] == 404
    finally:
        call.core.close()


def test_a_host_with_letters_that_none_has_is_refused_in_the_settings(tmp_path: Path) -> None:
    call = loops_at(tmp_path, {"news": "", "shop": 'hosts = ["Shop.example.com/x"]\n'})
    try:
        assert "hosts" in (call.core.loops.error("shop") or "")
    finally:
        call.core.close()
