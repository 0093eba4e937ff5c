"""The HTTP interface as an application sees it, on a real core, spool and registry."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from decision.draw import draw
from decision.errors import FieldError
from decision.records import decode_decision
from pipelines.settings import load_settings
from serving.core import Core
from serving.http.app import App
from serving.routes import MAX_BODY
from serving.start import open_core

QUESTION: dict[str, Any] = {
    "context": {"hour": 3, "user": {"geo": "de"}},
    "actions": [{"id": "a", "features": {"x": 1}}, {"id": "b"}, {"id": "c", "features": {"x": 0.5}}],
}


class Caller:
    """Calls the ASGI application without a socket."""

    def __init__(self, core: Core) -> None:
        self.core = core
        self.app = App(lambda: core)

    def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
        content = body if isinstance(body, bytes) else (None if body is None else json.dumps(body).encode())

        async def call() -> httpx.Response:
            transport = httpx.ASGITransport(app=self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
                sent = {name.replace("_", "-"): value for name, value in headers.items()}
                return await client.request(method, path, content=content, headers=sent)

        return asyncio.run(call())

    def logged(self, event_id: str) -> list[Any]:
        return self.core.spool.find("decisions", event_id.encode())


def open_at(home: Path, text: str = "", **settings: Any) -> Core:
    path = home / "loops" / "news" / "loop.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return open_core(load_settings({}, home=str(home), **settings))


@pytest.fixture(scope="module")
def call(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Caller]:
    core = open_at(tmp_path_factory.mktemp("home"))
    yield Caller(core)
    core.close()


def test_decide_answers_with_the_probability_of_the_draw_and_logs_it(call: Caller) -> None:
    response = call("POST", "/v1/loops/news/decide", QUESTION | {"event_id": "d1", "subject_id": "s"})
    assert response.status_code == 200
    answer = response.json()
    (message,) = call.logged("d1")
    record = decode_decision(message.value)
    assert answer["action_id"] == record.action_ids[record.action_index]
    assert answer["propensity"] == record.propensity == record.pmf[record.action_index]
    assert draw(record.pmf, record.seed) == record.action_index
    assert answer["ranking"][0]["id"] == answer["action_id"]
    assert sorted(r["id"] for r in answer["ranking"]) == ["a", "b", "c"]
    assert (answer["policy_version"], answer["mode"]) == ("baseline:uniform", "online")


def test_decide_without_an_event_id_makes_one_that_sorts_by_time(call: Caller) -> None:
    ids = [call("POST", "/v1/loops/news/decide", QUESTION).json()["event_id"] for _ in range(3)]
    assert len(set(ids)) == 3
    assert all(event_id[14] == "7" for event_id in ids)


def test_repeated_request_returns_the_stored_decision_and_a_different_one_conflicts(call: Caller) -> None:
    first = call("POST", "/v1/loops/news/decide", QUESTION | {"event_id": "d2"})
    again = call("POST", "/v1/loops/news/decide", QUESTION | {"event_id": "d2"})
    assert again.json() == first.json()
    other = call("POST", "/v1/loops/news/decide", QUESTION | {"event_id": "d2", "context": {"hour": 4}})
    assert other.status_code == 409
    assert other.json()["field"] == "event_id"
    assert len(call.logged("d2")) == 1


def test_excluded_actions_are_neither_drawn_nor_in_the_logged_pmf(call: Caller) -> None:
    answer = call("POST", "/v1/loops/news/decide", QUESTION | {"event_id": "d3", "excluded_actions": ["a", "c"]}).json()
    assert (answer["action_id"], answer["propensity"]) == ("b", 1.0)
    assert decode_decision(call.logged("d3")[0].value).action_ids == ["b"]


def test_slots_are_filled_without_repeating_an_action(call: Caller) -> None:
    slots = [{"id": "top", "features": {"size": 2}}, {"id": "side", "excluded_actions": ["a"]}]
    answer = call("POST", "/v1/loops/news/decide", QUESTION | {"event_id": "d4", "slots": slots}).json()
    picks = [slot["action_id"] for slot in answer["slots"]]
    assert len(set(picks)) == 2
    assert picks[1] != "a"
    records = [decode_decision(m.value) for m in call.logged("d4")]
    assert [r.slot for r in records] == ["top", "side"]
    assert [r.propensity for r in records] == [slot["propensity"] for slot in answer["slots"]]
    assert json.loads(bytes(records[0].context))["slot"] == {"size": 2}
    again = call("POST", "/v1/loops/news/decide", QUESTION | {"event_id": "d4", "slots": slots}).json()
    assert again == answer


def test_batch_answers_or_refuses_each_on_its_own(call: Caller) -> None:
    body = {"decisions": [QUESTION | {"event_id": "d5"}, QUESTION | {"actions": []}]}
    answers = call("POST", "/v1/loops/news/decide/batch", body).json()["decisions"]
    assert answers[0]["event_id"] == "d5"
    assert (answers[1]["status"], answers[1]["field"]) == (422, "actions")


def test_a_batch_decides_as_single_requests_do_and_repeats_as_they_do(call: Caller) -> None:
    questions = [QUESTION | {"event_id": f"many-{i}", "context": {"hour": i}} for i in range(120)]
    path = "/v1/loops/news/decide/batch"
    answers = call("POST", path, {"decisions": questions}).json()["decisions"]
    assert [answer["event_id"] for answer in answers] == [f"many-{i}" for i in range(120)]
    for question, answer in zip(questions, answers, strict=True):
        (message,) = call.logged(question["event_id"])
        record = decode_decision(message.value)
        assert json.loads(bytes(record.context)) == question["context"]
        assert (answer["action_id"], answer["propensity"]) == (
            record.action_ids[record.action_index],
            record.propensity,
        )
    assert call("POST", "/v1/loops/news/decide", questions[7]).json() == answers[7]
    other = QUESTION | {"event_id": "many-8", "context": {"hour": -1}}
    again = call(
        "POST", path, {"decisions": [questions[9], other, questions[9], {**questions[9], "event_id": "new"}] * 2}
    )
    first, conflict, repeated, *rest = again.json()["decisions"]
    assert first == repeated == answers[9]
    assert (conflict["status"], conflict["field"]) == (409, "event_id")
    assert rest[0] == rest[4]
    assert len(call.logged("new")) == 1


def test_a_decision_too_large_for_the_log_is_refused_alone(call: Caller) -> None:
    large = QUESTION | {"event_id": "large", "context": {f"f{i}": "x" * 1_000 for i in range(1_100)}}
    small = [QUESTION | {"event_id": f"beside-{i}"} for i in range(2)]
    body = {"decisions": [small[0], large, small[1]]}
    first, refused, last = call("POST", "/v1/loops/news/decide/batch", body).json()["decisions"]
    assert (refused["status"], refused["field"]) == (422, "record")
    assert [first["event_id"], last["event_id"]] == ["beside-0", "beside-1"]
    assert [len(call.logged(event_id)) for event_id in ("beside-0", "large", "beside-1")] == [1, 0, 1]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"surprise": 1}, "surprise"),
        ({"context": None}, "context"),
        ({"context": 3}, "context"),
        ({"context": {"a": {"b": {"c": {"d": {"e": {"f": 1}}}}}}}, "context.a.b.c.d.e"),
        ({"actions": []}, "actions"),
        ({"actions": [{"id": "a"}, {"id": "b"}, {"id": "a"}]}, "actions[2].id"),
        ({"actions": [{"id": ""}]}, "actions[0].id"),
        ({"actions": [{"id": 3}]}, "actions[0].id"),
        ({"actions": [{"id": "a", "weight": 2}]}, "actions[0].weight"),
        ({"actions": [{"id": str(i)} for i in range(1001)]}, "actions"),
        ({"event_id": ""}, "event_id"),
        ({"event_id": "x" * 257}, "event_id"),
        ({"event_id": "a\nb"}, "event_id"),
        ({"subject_id": ""}, "subject_id"),
        ({"step": -1}, "step"),
        ({"excluded_actions": ["a", "b", "c"]}, "excluded_actions"),
        ({"slots": []}, "slots"),
        ({"slots": [{"id": "s"}, {"id": "s"}]}, "slots"),
    ],
)
def test_bad_request_is_a_problem_document_that_names_the_field(call: Caller, change: dict, field: str) -> None:
    response = call("POST", "/v1/loops/news/decide", {"event_id": "bad"} | QUESTION | change)
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["field"] == field
    assert problem["status"] == 422
    assert call.logged("bad") == []


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        (b"", 400, "body"),
        (b"nonsense", 400, "body"),
        (b"\xff\xfe", 400, "body"),
        (b"[]", 400, "body"),
        (b"[" * 5_000, 400, "body"),
        (b'{"context":{"x":NaN},"actions":[{"id":"a"}]}', 422, "context.x"),
        (b'{"context":{},"actions":[{"id":"a","features":{"y":[1,-Infinity]}}]}', 422, "actions[0].features.y[1]"),
        (b'{"context":{"x":1e999},"actions":[{"id":"a"}]}', 422, "context.x"),
        (b'{"actions":[{"id":"a"}]}', 422, "context"),
        (b" " * (MAX_BODY + 1), 413, "body"),
        (b"x" * 10_000_000, 413, "body"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_body_that_is_no_request_is_refused(call: Caller, body: bytes, status: int, field: str) -> None:
    response = call("POST", "/v1/loops/news/decide", body)
    assert (response.status_code, response.json()["field"]) == (status, field)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/v1/loops/nope/decide", 404),
        ("GET", "/v1/loops/nope", 404),
        ("GET", "/v1/loops/news/decide", 405),
        ("POST", "/v1/loops/news/explode", 404),
        ("DELETE", "/v1/loops", 405),
        ("GET", "/v1/decisions/never-made", 404),
        ("GET", "/nothing", 404),
    ],
)
def test_other_errors_are_problem_documents_too(call: Caller, method: str, path: str, status: int) -> None:
    response = call(method, path, QUESTION if method == "POST" else None)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["status"] == status


def test_outcomes_one_or_many_are_on_disk_when_accepted(call: Caller) -> None:
    one = call("POST", "/v1/loops/news/outcomes", {"event_id": "o1", "value": 1})
    many = [{"event_id": "o1", "value": -0.5, "name": "return", "idempotency_key": "k"}, {"event_id": "o2", "value": 2}]
    two = call("POST", "/v1/loops/news/outcomes", many)
    assert (one.status_code, two.status_code) == (202, 202)
    assert two.json() == {"accepted": 2}
    stored = [json.loads(m.value) for m in call.core.spool.find("outcomes", b"o1")]
    assert [(o["name"], o["value"]) for o in stored] == [("reward", 1.0), ("return", -0.5)]


@pytest.mark.parametrize(
    ("report", "field"),
    [
        ({"event_id": "o", "value": True}, "value"),
        ({"event_id": "o", "value": "1"}, "value"),
        ({"event_id": "", "value": 1}, "event_id"),
        ({"event_id": "o", "value": 1, "ts": "yesterday"}, "ts"),
        ({"event_id": "o", "value": 1, "ts": "2026-01-01T00:00:00"}, "ts"),
        ({"event_id": "o"}, "value"),
        ([], "outcomes"),
        ([{"event_id": "o", "value": 1}, {"event_id": "", "value": 1}], "[1].event_id"),
    ],
)
def test_bad_outcome_names_the_field_and_writes_nothing(call: Caller, report: Any, field: str) -> None:
    before = len(call.core.spool.find("outcomes", b"o"))
    response = call("POST", "/v1/loops/news/outcomes", report)
    assert (response.status_code, response.json()["field"]) == (422, field)
    assert len(call.core.spool.find("outcomes", b"o")) == before


def test_activation_is_an_outcome_of_that_name(call: Caller) -> None:
    assert call("POST", "/v1/loops/news/activate", {"event_id": "act"}).status_code == 202
    (message,) = call.core.spool.find("outcomes", b"act")
    assert json.loads(message.value)["name"] == "activation"


def test_explanation_repeats_the_draw(call: Caller) -> None:
    call("POST", "/v1/loops/news/decide", QUESTION | {"event_id": "x1"})
    explained = call("GET", "/v1/decisions/x1").json()["decisions"][0]
    assert explained["draw_matches"] is True
    assert explained["redrawn_index"] == explained["action_index"]
    assert explained["pmf"] == [1 / 3] * 3


def test_loop_page_health_and_openapi(call: Caller) -> None:
    assert call("GET", "/v1/loops").json() == {"loops": ["news"]}
    described = call("GET", "/v1/loops/news").json()
    assert described["settings"]["name"] == "news"
    assert described["process"]["decided"] > 0
    assert call("GET", "/livez").status_code == call("GET", "/readyz").status_code == 200
    assert b"decision_decided_total" in call("GET", "/metrics").content
    document = call("GET", "/openapi.json").json()
    assert document["openapi"] == "3.1.0"
    properties = document["components"]["schemas"]["DecideRequest"]["properties"]
    assert {"context", "actions", "event_id", "excluded_actions", "slots"} <= set(properties)


def test_personalizer_rank_reward_and_activate_keep_their_shapes(call: Caller) -> None:
    body = {
        "contextFeatures": [{"timeOfDay": "am"}, {"user": {"geo": "de"}}],
        "actions": [{"id": "p", "features": [{"f": 1}, {"g": "x"}]}, {"id": "q", "features": []}],
        "excludedActions": ["q"],
        "eventId": "az1",
        "deferActivation": True,
    }
    ranked = call("POST", "/personalizer/v1.0/rank", body)
    assert ranked.status_code == 201
    assert ranked.json() == {
        "ranking": [{"id": "p", "probability": 1.0}, {"id": "q", "probability": 0.0}],
        "eventId": "az1",
        "rewardActionId": "p",
    }
    assert decode_decision(call.logged("az1")[0].value).deferred is True
    assert call("POST", "/personalizer/v1.0/events/az1/reward", {"value": 0.5}).status_code == 204
    assert call("POST", "/personalizer/v1.0/events/az1/activate").status_code == 204
    assert call("GET", "/personalizer/v1.0/rank").status_code == 405


def test_personalizer_multislot_fills_each_slot(call: Caller) -> None:
    body = {
        "actions": [{"id": "p", "features": []}, {"id": "q", "features": []}],
        "slots": [{"id": "s1", "baselineAction": "p"}, {"id": "s2", "baselineAction": "q"}],
        "eventId": "az2",
    }
    answer = call("POST", "/personalizer/v1.1-preview.2/multislot/rank", body).json()
    assert {slot["rewardActionId"] for slot in answer["slots"]} == {"p", "q"}
    rewards = {"reward": [{"slotId": "s1", "value": 1}]}
    assert call("POST", "/personalizer/v1.1-preview.2/multislot/events/az2/reward", rewards).status_code == 204
    wrong = body | {"slots": [{"id": "s1", "baselineAction": "zz"}]}
    refused = call("POST", "/personalizer/v1.1-preview.2/multislot/rank", wrong).json()
    assert refused["error"]["target"].startswith("slots[0]")


def test_with_api_keys_nothing_unauthenticated_changes_state(tmp_path: Path) -> None:
    core = open_at(tmp_path, api_keys="one, two")
    keyed = Caller(core)
    try:
        assert keyed("POST", "/v1/loops/news/decide", QUESTION).status_code == 401
        assert keyed("POST", "/v1/loops/news/decide", QUESTION, Authorization="Bearer three").status_code == 401
        assert keyed("POST", "/v1/loops/news/decide", QUESTION, Authorization="Bearer two").status_code == 200
        assert keyed("POST", "/v1/loops/news/decide", QUESTION, Ocp_Apim_Subscription_Key="one").status_code == 200
        assert keyed("GET", "/v1/loops").status_code == 401
        assert keyed("GET", "/livez").status_code == 200
    finally:
        core.close()


def test_other_addresses_than_loopback_need_keys(tmp_path: Path) -> None:
    with pytest.raises(FieldError, match="api_keys"):
        open_at(tmp_path, host="0.0.0.0")


@pytest.mark.parametrize("mode", ["apprentice", "logging_only"])
def test_first_action_baseline_is_what_apprentice_and_logging_only_return(tmp_path: Path, mode: str) -> None:
    core = open_at(tmp_path, f'mode = "{mode}"\n[baseline]\nkind = "first"\n')
    try:
        caller = Caller(core)
        answer = caller("POST", "/v1/loops/news/decide", QUESTION | {"event_id": "m"}).json()
        assert (answer["action_id"], answer["propensity"], answer["mode"]) == ("a", 1.0, mode)
        assert decode_decision(caller.logged("m")[0].value).mode == mode
    finally:
        core.close()


def test_a_ranking_baseline_draws_by_the_place_of_what_may_be_shown(tmp_path: Path) -> None:
    core = open_at(tmp_path, '[baseline]\nkind = "ranking"\nexplore = 0.0\n[policy]\nexploration = "tilt"\n')
    try:
        caller = Caller(core)
        answer = caller("POST", "/v1/loops/news/decide", QUESTION | {"event_id": "whole"}).json()
        record = decode_decision(caller.logged("whole")[0].value)
        assert record.pmf == pytest.approx([6 / 11, 3 / 11, 2 / 11])
        assert answer["propensity"] == record.pmf[record.action_index]
        assert record.policy_version == "baseline:ranking"
        caller("POST", "/v1/loops/news/decide", QUESTION | {"event_id": "part", "excluded_actions": ["a"]})
        part = decode_decision(caller.logged("part")[0].value)
        chances = dict(zip(part.action_ids, part.pmf, strict=True))
        assert (chances["b"], chances["c"]) == pytest.approx((2 / 3, 1 / 3))
    finally:
        core.close()


def test_a_loop_whose_file_is_wrong_says_so_and_the_others_are_served(tmp_path: Path) -> None:
    path = tmp_path / "loops" / "bad" / "loop.toml"
    path.parent.mkdir(parents=True)
    path.write_text("[policy]\nexploration = 'falkon'")
    core = open_at(tmp_path)
    try:
        call = Caller(core)
        assert call("POST", "/v1/loops/news/decide", QUESTION).status_code == 200
        for refused in (call("POST", "/v1/loops/bad/decide", QUESTION), call("GET", "/v1/loops/bad")):
            assert refused.status_code == 503
            assert str(path) in refused.json()["detail"]
            assert "did you mean 'falcon'?" in refused.json()["detail"]
        assert call("POST", "/v1/loops/none/decide", QUESTION).status_code == 404
        assert call("GET", "/readyz").status_code == 200
        assert call("GET", "/v1/loops").json() == {"loops": ["news"]}
        path.write_text("")
        core.loops.refresh()
        assert call("POST", "/v1/loops/bad/decide", QUESTION).status_code == 200
        path.write_text("mode = 3")
        core.loops.refresh()
        assert call("POST", "/v1/loops/bad/decide", QUESTION).status_code == 200  # under the last good settings
        assert "mode: must be" in call("GET", "/v1/loops/bad").json()["error"]
    finally:
        core.close()


def test_a_query_of_too_many_fields_is_refused_by_name(tmp_path: Path) -> None:
    core = open_at(tmp_path)
    found = Caller(core)("GET", f"/v1/decisions/e1?{'&'.join('loop=news' for _ in range(9))}")
    assert (found.status_code, found.json()["field"]) == (422, "query")
    core.close()


@pytest.mark.parametrize("patience_s", [300.0, 0.001])
def test_decisions_are_answered_while_the_first_page_waits_for_what_pages_need(
    patience_s: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    core = open_at(tmp_path)
    app, go_on = App(lambda: core), threading.Event()
    opens = app._open_pages

    def held() -> None:
        go_on.wait(300)
        opens()

    monkeypatch.setattr(app, "_open_pages", held)
    monkeypatch.setattr("serving.http.app._OPENED_S", patience_s)

    async def asked() -> tuple[int, httpx.Response, int]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://localhost") as client:
            page = asyncio.create_task(client.get("/console/"))
            await asyncio.sleep(0)
            decided = await client.post("/v1/loops/news/decide", json=QUESTION)
            if patience_s < 1.0:
                first = await page
                go_on.set()
            else:
                assert not page.done()
                go_on.set()
                first = await page
            monkeypatch.setattr("serving.http.app._OPENED_S", 300.0)
            return decided.status_code, first, (await client.get("/console/")).status_code

    decided, first, second = asyncio.run(asked())
    app.close()
    assert decided == 200
    assert second in (200, 303)
    if patience_s < 1.0:
        assert (first.status_code, first.headers["retry-after"]) == (503, "1")
    else:
        assert first.status_code == second
