"""Who may ask what of the panels over HTTP, and what the answers hold."""

from __future__ import annotations

import json
from collections.abc import Iterator
from urllib.parse import urlencode

import pytest
import sqlalchemy as sa

from decision.fairness.audit_log import Entry, check
from decision.fairness.rule import Rule
from pipelines.fairness import tables as t
from tests.worlds.panel_service import House
from tests.worlds.panels import LOOP, NOW, pair

EVERY = [
    ("GET", "/fairness/tasks", {"auditor"}),
    ("GET", "/fairness/tasks/next", {"auditor"}),
    ("GET", "/fairness/tasks/t0", {"auditor"}),
    ("POST", "/fairness/tasks/t0/judgements", {"auditor"}),
    ("GET", f"/fairness/reports?loop={LOOP}", {"adjudicator", "administrator", "owner"}),
    ("POST", "/fairness/reports/t0/adjudicate", {"adjudicator"}),
    ("GET", "/fairness/pairs/t0", {"administrator"}),
    ("POST", "/fairness/replay", {"adjudicator", "administrator", "owner"}),
    ("GET", f"/fairness/metrics?loop={LOOP}", {"adjudicator", "administrator", "owner"}),
    ("POST", "/fairness/appeals", {"administrator", "auditor", "owner"}),
    ("GET", "/fairness/export", {"administrator"}),
    ("GET", "/fairness/verify", {"administrator"}),
    ("GET", "/fairness/people", {"administrator"}),
    ("POST", "/fairness/people", {"administrator"}),
]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    made = House(tmp_path_factory.mktemp("home"))
    made.keys["auditor"] = made.panel.keys[0]
    yield made
    made.close()


@pytest.mark.parametrize(("method", "path", "roles"), EVERY)
def test_every_endpoint_asks_for_a_key_and_for_the_role(house: House, method: str, path: str, roles: set[str]) -> None:
    before = house.store.head()
    for key in ("", "dsk_" + "x" * 43):
        refused = house(method, path, {}, key=key)
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"] == "Bearer"
        assert refused.headers["content-type"] == "application/problem+json"
    for role in ("auditor", "adjudicator", "administrator", "owner"):
        answer = house(method, path, {}, key=role)
        assert (answer.status_code == 403) == (role not in roles), (role, answer.text)
        assert answer.status_code < 500
    assert house.store.head() == before  # nothing of all this changed anything


def test_an_auditor_judges_own_tasks_and_sees_no_others(house: House) -> None:
    first, second = house.panel.open(pair(), pair(), rule=Rule(auditors=2, minimum=2))
    rows = house.store.rows(sa.select(t.assignments))
    for person, key in zip(house.panel.people, house.panel.keys, strict=True):
        own = {row["task_id"] for row in rows if row["person_id"] == person.person_id}
        shown = {task["task_id"] for task in house("GET", "/fairness/tasks", key=key).json()["tasks"]}
        assert shown == own & {first, second}
        for task_id in {first, second} - own:
            missing = house("GET", f"/fairness/tasks/{task_id}", key=key)
            assert (missing.status_code, missing.json()["field"]) == (404, "task_id")
            said = {"verdict": "unfair", "payload_hash": "0" * 64}
            assert house("POST", f"/fairness/tasks/{task_id}/judgements", said, key=key).status_code == 404
        for task_id in own:
            task = house("GET", f"/fairness/tasks/{task_id}", key=key).json()
            said = {"verdict": "unfair", "payload_hash": task["payload_hash"], "acceptable": 0.1, "reason": "alike"}
            done = house("POST", f"/fairness/tasks/{task_id}/judgements", said, key=key)
            assert done.status_code == 201
            again = house("POST", f"/fairness/tasks/{task_id}/judgements", said, key=key)
            assert again.json() == done.json()
    found = house("GET", f"/fairness/reports?loop={LOOP}&status=upheld", key="owner").json()["reports"]
    assert {row["task_id"] for row in found} >= {first, second}
    assert not any(person.person_id in json.dumps(found) for person in house.panel.people)
    assert house("GET", "/fairness/tasks/next", key=house.panel.keys[0]).status_code == 204


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ({"verdict": "unfair"}, "payload_hash"),
        ({"verdict": "unfair", "payload_hash": "0" * 64}, "payload_hash"),
        ({"verdict": "guilty", "payload_hash": ""}, "verdict"),
        ({"verdict": "fair", "payload_hash": "", "mood": "good"}, "mood"),
        ({"verdict": "fair", "payload_hash": "", "acceptable": "much"}, "acceptable"),
    ],
)
def test_a_judgement_that_does_not_fit_is_a_problem_that_names_the_field(
    house: House, said: dict[str, object], field: str
) -> None:
    house.panel.open(pair())
    task = house("GET", "/fairness/tasks/next", key="auditor").json()
    refused = house("POST", f"/fairness/tasks/{task['task_id']}/judgements", said, key="auditor")
    assert (refused.status_code, refused.json()["field"]) == (422, field)
    assert house("GET", "/fairness/tasks/next", key="auditor").json()["task_id"] == task["task_id"]


def test_the_owner_of_a_model_cannot_audit_it(house: House) -> None:
    (task,) = house.panel.open(pair(), rule=Rule(auditors=6))
    members = house.store.rows(sa.select(t.assignments).where(t.assignments.c.task_id == task))
    assert house.both.person_id not in {row["person_id"] for row in members}
    with house.store._engine.begin() as connection:  # and would not be heard if someone put them on the panel
        connection.execute(
            sa.insert(t.assignments).values(task_id=task, person_id=house.both.person_id, assigned_at="2026")
        )
    shown = house("GET", f"/fairness/tasks/{task}", key="auditor").json()
    said = {"verdict": "fair", "payload_hash": shown["payload_hash"]}
    refused = house("POST", f"/fairness/tasks/{task}/judgements", said, key="both")
    assert (refused.status_code, "does not audit" in refused.json()["detail"]) == (403, True)
    verified = house("GET", "/fairness/verify", key="administrator").json()
    assert [fault["what"] for fault in verified["faults"]] == [f"the panel of task {task} is not the one in the log"]
    with house.store._engine.begin() as connection:
        connection.execute(sa.delete(t.assignments).where(t.assignments.c.assigned_at == "2026"))
    assert house("GET", "/fairness/metrics?loop=other", key="owner").status_code == 403


def test_a_dispute_is_decided_once_with_a_reason(house: House) -> None:
    (task,) = house.panel.open(pair(), rule=Rule(quorum=0.9))
    house.panel.judge(task, "unfair", "unfair", "fair", "fair", "fair")
    path = f"/fairness/reports/{task}/adjudicate"
    assert house("POST", path, {"verdict": "upheld", "note": ""}, key="adjudicator").json()["field"] == "note"
    assert house("POST", path, {"verdict": "no", "note": "x"}, key="adjudicator").json()["field"] == "verdict"
    done = house("POST", path, {"verdict": "upheld", "note": "The same income."}, key="adjudicator")
    assert (done.status_code, done.json()["status"]) == (201, "upheld")
    assert house("POST", path, {"verdict": "dismissed", "note": "x"}, key="adjudicator").status_code == 422
    lineage = house("GET", f"/fairness/pairs/{task}", key="administrator").json()
    assert [entry["kind"] for entry in lineage["log"]][-2:] == ["closed", "adjudicated"]
    assert "payload" not in lineage


def test_metrics_replay_export_and_verification_agree(house: House) -> None:
    seen = house("GET", f"/fairness/metrics?loop={LOOP}", key="administrator").json()
    folded = house("POST", "/fairness/replay", {"loop": LOOP, "quorum": 0.6}, key="owner").json()
    assert folded["upheld"] <= sum(seen["tasks"].values())
    assert house("GET", f"/fairness/metrics?loop={LOOP}", key="owner").json()["reports"] == {}
    verified = house("GET", "/fairness/verify", key="administrator").json()
    assert verified.pop("unknown")
    assert verified == {"ok": True, "entries": seen["entries"], "head": seen["head"], "faults": []}
    lines = house("GET", "/fairness/export", key="administrator").text.splitlines()
    checked = check(Entry(**json.loads(line)) for line in lines)
    assert (checked.entries, checked.head, checked.faults) == (seen["entries"], seen["head"], ())


def test_a_member_of_the_panel_appeals_its_verdict_once_and_nothing_else(house: House) -> None:
    (task,) = house.panel.open(pair(), rule=Rule(auditors=5))
    house.panel.judge(task, *["unfair"] * 5)
    asked = {"loop": LOOP, "task_id": task, "reason": "They differ."}
    assert house("POST", "/fairness/appeals", asked | {"loop": "other"}, key="auditor").status_code == 422
    assert house("POST", "/fairness/appeals", asked, key="both").status_code == 201  # the owner, who did not sit on it
    house("POST", f"/fairness/reports/{task}/adjudicate", {"verdict": "upheld", "note": "No."}, key="adjudicator")
    assert house("POST", "/fairness/appeals", asked, key="both").json()["field"] == "task_id"
    assert house("POST", "/fairness/appeals", asked, key="auditor").status_code == 201
    of_decision = {"loop": LOOP, "event_id": "e1", "reason": "Mine."}
    assert house("POST", "/fairness/appeals", of_decision, key="auditor").status_code == 403


def test_people_are_added_by_administrators_and_their_keys_open(house: House) -> None:
    made = house("POST", "/fairness/people", {"name": "New", "roles": ["auditor"]}, key="administrator")
    assert made.status_code == 201
    assert house("GET", "/fairness/tasks", key=made.json()["key"]).json() == {"tasks": []}
    assert "key" not in house("GET", "/fairness/people", key="administrator").text.replace("key_hash", "x")
    refused = house("POST", "/fairness/people", {"name": "N", "roles": ["king"]}, key="administrator")
    assert refused.json()["field"] == "role"


def test_appeals_need_a_loop_that_exists_and_a_reason(house: House) -> None:
    asked = {"loop": LOOP, "event_id": "e1", "reason": "My neighbour got it."}
    assert house("POST", "/fairness/appeals", asked, key="owner").status_code == 201
    assert house("POST", "/fairness/appeals", asked | {"loop": "none"}, key="administrator").status_code == 404
    assert house("POST", "/fairness/appeals", asked | {"reason": ""}, key="owner").json()["field"] == "reason"


def test_limits_and_unknown_paths_are_problems(house: House) -> None:
    large = house("POST", "/fairness/replay", key="owner", content=b"x" * 70_000)
    assert large.status_code == 413
    assert house("POST", "/fairness/replay", key="owner", content=b"{").status_code == 400
    assert house("GET", "/fairness/nothing", key="owner").headers["content-type"] == "application/problem+json"
    assert house("DELETE", "/fairness/tasks", key="auditor").status_code == 405
    assert house("GET", "/fairness/reports", key="owner").json()["field"] == "loop"
    assert house("GET", f"/fairness/reports?loop={LOOP}&x=1", key="owner").json()["field"] == "x"


def test_pages_change_nothing_without_a_session_or_with_a_foreign_form(house: House) -> None:
    before = house.store.head()
    kind = "application/x-www-form-urlencoded"
    assert house("GET", "/console/review").headers["location"] == "/console/login"
    for path in ("/console/review/t0", "/console/people", f"/console/panels/{LOOP}/assign", "/console/disputes/t0"):
        assert house("POST", path, content=b"verdict=fair", content_type=kind).status_code == 401
    assert house("POST", "/console/login", content=b"key=" + b"x" * 40, content_type=kind).status_code == 401
    key = house.keys["administrator"]
    signed = house("POST", "/console/login", content=urlencode({"key": key}).encode(), content_type=kind)
    cookie = signed.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    after = house.store.head()
    assert after.entries == before.entries + 1  # the session
    session = cookie.partition(";")[0]
    forged = urlencode({"form": "0" * 64, "name": "X", "roles": "administrator"}).encode()
    assert house("POST", "/console/people", content=forged, content_type=kind, cookie=session).status_code == 403
    assert house.store.head() == after
    page = house("GET", "/console/panels", cookie=session)
    assert page.status_code == 200
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert house("GET", "/console/review", cookie=session).status_code == 403  # an administrator judges nothing


def test_the_loops_lead_to_the_panels_and_who_has_no_key_of_theirs_is_told_so(house: House) -> None:
    asked = house("GET", "/console/login?panels")
    assert asked.status_code == 200
    assert "Panels have people of their own" in asked.text
    assert '<a href="/console/loops"' in asked.text  # and back
    assert "people of their own" not in house("GET", "/console/login").text
    form, kind = urlencode({"key": house.keys["owner"]}).encode(), "application/x-www-form-urlencoded"
    signed = house("POST", "/console/login", content=form, content_type=kind)
    session = signed.headers["set-cookie"].partition(";")[0]
    assert house("GET", "/console/login?panels", cookie=session).headers["location"] == f"/console/fairness/{LOOP}"


def test_a_session_that_was_opened_behind_a_proxy_with_tls_never_travels_in_plain_text(house: House) -> None:
    form, kind = urlencode({"key": house.keys["owner"]}).encode(), "application/x-www-form-urlencoded"
    behind = house("POST", "/console/login", content=form, content_type=kind, x_forwarded_proto="https")
    assert "Secure" in behind.headers["set-cookie"]
    plain = house("POST", "/console/login", content=form, content_type=kind)
    assert "Secure" not in plain.headers["set-cookie"]


def test_the_openapi_document_names_every_endpoint_of_the_panels(house: House) -> None:
    paths = house("GET", "/openapi.json").json()["paths"]
    for method, path, _ in EVERY:
        named = path.partition("?")[0].replace("t0", "{task_id}")
        assert method.lower() in paths[named]


def test_times_of_the_store_are_those_of_the_services_clock(house: House) -> None:
    assert house.store.rows(sa.select(t.sessions))[0]["expires_at"].startswith(NOW.strftime("%Y-%m-02"))
