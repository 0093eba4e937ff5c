"""One table of routes: a path is decoded once, whatever its ids hold, and each row answers as it says."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.problems import ProblemError
from serving.routes import Call, Route, Table
from tests.serving.http.test_app import QUESTION, Caller, open_at


async def nothing(call: Call) -> bytes:
    return b""


def route(path: str, method: Any = "GET") -> Route:
    return Route(method=method, path=path, name=path, tag="t", summary="", answer=nothing, role="anyone")


def find(table: Table, raw: bytes, method: str = "GET") -> tuple[str, dict[str, str]]:
    found, path = table.find({"type": "http", "method": method, "raw_path": raw, "path": "/shown"})
    return found.path, path


TABLE = Table([route("/a"), route("/a/{x}"), route("/a/{x}/b", "POST"), route("/a/fixed"), route("/a/{x}/{y}")])


@given(st.text(min_size=1, max_size=30).filter(lambda text: text.isprintable() and text != "fixed"))
def test_an_id_of_any_printable_letters_arrives_as_it_was_sent(name: str) -> None:
    assert find(TABLE, f"/a/{quote(name, safe='')}".encode()) == ("/a/{x}", {"x": name})


@given(st.text("%25/ 41aü", min_size=1, max_size=12))
def test_a_path_is_decoded_once_so_that_a_percent_sign_is_one(name: str) -> None:
    assert find(TABLE, f"/a/{quote(name, safe='')}/b".encode(), "POST")[1] == {"x": name}


def test_fixed_parts_go_before_parameters_in_whatever_spelling() -> None:
    assert find(TABLE, b"/a/fixed")[0] == "/a/fixed"
    assert find(TABLE, b"/a/%66ixed")[0] == "/a/fixed"
    assert find(TABLE, b"/%61")[0] == "/a"
    assert find(TABLE, b"/a/p%2Fq/b", "POST")[1] == {"x": "p/q"}


@pytest.mark.parametrize(
    ("raw", "method", "status"),
    [
        (b"/", "GET", 404),
        (b"/b", "GET", 404),
        (b"/a/", "GET", 404),
        (b"/a//b", "POST", 404),
        (b"/a/x/y/z", "GET", 404),
        (b"/a", "POST", 405),
        (b"/a/x/b", "GET", 405),
        (b"/a/x", "DELETE", 405),
    ],
)
def test_other_paths_and_methods_are_refused(raw: bytes, method: str, status: int) -> None:
    with pytest.raises(ProblemError) as refused:
        find(TABLE, raw, method)
    assert refused.value.status == status
    if status == 405:
        assert refused.value.headers[0][0] == b"allow"


def test_two_rows_with_one_path_and_method_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="stands twice"):
        Table([route("/a/{x}"), route("/a/{y}")])


IDS = ["p%41q", "a/b", "a b", "naïve-日本", "100%", "%2F", "..", "a?b#c", "e;f=1", "+", "%", "%zz"]


@pytest.fixture(scope="module")
def call(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Caller]:
    core = open_at(tmp_path_factory.mktemp("home"))
    yield Caller(core)
    core.close()


@pytest.mark.parametrize("event_id", IDS)
def test_an_event_of_any_id_can_be_ranked_rewarded_activated_and_explained(call: Caller, event_id: str) -> None:
    path = quote(event_id, safe="").replace(".", "%2E")  # clients take dots that stand alone out of a path
    body = {"eventId": event_id, "contextFeatures": [], "actions": [{"id": event_id, "features": []}]}
    assert call("POST", "/personalizer/v1.0/rank", body).status_code == 201
    assert call("POST", f"/personalizer/v1.0/events/{path}/reward", {"value": 0.5}).status_code == 204
    assert call("POST", f"/personalizer/v1.0/events/{path}/activate").status_code == 204
    explained = call("GET", f"/v1/decisions/{path}").json()
    assert explained["event_id"] == event_id
    assert [outcome["event_id"] for outcome in explained["outcomes"]] == [event_id] * 2
    assert explained["decisions"][0]["action_ids"] == [event_id]


def test_two_ids_that_decode_to_each_other_stay_apart(call: Caller) -> None:
    for event_id in ("r%41s", "rAs"):
        call("POST", "/v1/loops/news/decide", QUESTION | {"event_id": event_id})
    call("POST", "/personalizer/v1.0/events/r%2541s/reward", {"value": 1})
    assert len(call("GET", "/v1/decisions/r%2541s").json()["outcomes"]) == 1
    assert call("GET", "/v1/decisions/rAs").json()["outcomes"] == []


def test_a_path_that_is_no_utf_8_names_its_parameter(call: Caller) -> None:
    response = call("GET", "/v1/decisions/%ff%fe")
    assert (response.status_code, response.json()["field"]) == (422, "event_id")


def test_head_is_answered_as_get_without_a_body(call: Caller) -> None:
    response = call("HEAD", "/livez")
    assert (response.status_code, response.content) == (200, b"")
    assert response.headers["content-length"] == str(len(call("GET", "/livez").content))


def test_a_failure_of_ours_is_a_problem_document_that_tells_nothing(
    call: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*arguments: Any) -> None:
        raise ZeroDivisionError("a secret")

    monkeypatch.setattr(type(call.core), "answer", fail)
    response = call("POST", "/v1/loops/news/decide", QUESTION)
    assert response.status_code == 500
    assert b"secret" not in response.content


def test_other_events_than_requests_are_left_to_others(call: Caller) -> None:
    async def never(*arguments: Any) -> Any:
        raise AssertionError("nothing is received or sent")

    asyncio.run(call.app({"type": "unknown"}, never, never))
