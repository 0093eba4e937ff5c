"""Who may ask what: every route against every kind of key, as the table of routes says, and what a tenant sees."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pipelines.access.callers import EndedError, Holder, TooManyError
from pipelines.access.keys import PREFIX, ROLES, add, listed, new_key, revoke
from pipelines.operations import evaluations
from pipelines.settings import load_settings
from pipelines.state.change import change
from pipelines.state.state import State
from serving.core import Core
from serving.http.access import Access
from serving.http.personalizer.refusals import NOT_DONE
from serving.routes import OF_KEYS, Route
from serving.start import open_core
from tests.serving.http.test_app import QUESTION, Caller

NOW = datetime(2026, 5, 1, tzinfo=UTC)
NOT_YET = {"readModelProperties", "exportModel", "importModel", "readLogsProperties"}
NOT_YET |= {"showDecision", "findDecision", "showNight"}  # of a loop that decided nothing
NOT_YET |= {"readEvaluation", "deleteEvaluation", "applyFromEvaluation"}
"""What a loop without a version in charge, a night or an evaluation cannot answer, whoever asks."""
TENANTS = {"news": "acme", "shop": "other", "open": ""}


class Site:
    """An installation of three loops, two of them of tenants, and a key of every kind."""

    def __init__(self, home: Path, **settings: Any) -> None:
        for loop, tenant in TENANTS.items():
            path = home / "loops" / loop / "loop.toml"
            path.parent.mkdir(parents=True)
            path.write_text(f'tenant = "{tenant}"\n')
        self.settings = load_settings({}, home=str(home), api_keys="of-the-environment", **settings)
        self.tokens: dict[str, str] = {
            "none": "",
            "wrong": "dk_abcdefghijkl_" + "x" * 43,
            "static": "of-the-environment",
        }
        with State(self.settings.state_url) as state:
            for role in ROLES:
                self.make(state, role, roles=[role], loops=["news"])
            self.make(state, "other tenant", roles=["admin"], tenant="other")
            self.make(state, "own tenant", roles=["admin"], tenant="acme")
            self.make(state, "ended", roles=["admin"], expires_at=NOW + timedelta(days=1))
            key = self.make(state, "revoked", roles=["admin"])
            revoke(state, key, now=NOW, by="a test")
        self.core: Core = open_core(self.settings)
        self.call = Caller(self.core)

    def make(self, state: State, name: str, **what: Any) -> str:
        key, self.tokens[name] = new_key(**{"loops": [], "now": NOW, "by": "a test", **what})
        add(state, key, by="a test")
        return key.id

    def ask(self, route: Route, kind: str, loop: str = "news") -> Any:
        """Ask a route about a loop, with a body that it accepts."""
        path = route.path.replace("{loop}", loop).replace("{event_id}", "known")
        body = None if route.request is None else route.example
        headers = {"authorization": f"Bearer {self.tokens[kind]}"} if self.tokens[kind] else {}
        return self.call(route.method, path, body, **headers, **{"x-decision-loop": loop})

    def routes(self) -> list[Route]:
        _ = self.call.app.core
        return [route for route in self.call.app._routes if route.role in OF_KEYS or route.role == "anyone"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluations, "start", lambda *of: None)  # who may begin one is asked here, not what it finds
        yield from opened_site(tmp_path_factory)


def opened_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    opened = Site(tmp_path_factory.mktemp("home"))
    decided = opened.call("POST", "/v1/loops/news/decide", QUESTION | {"event_id": "known"}, **bearer(opened, "static"))
    assert decided.status_code == 200
    yield opened
    opened.core.close()


def bearer(site: Site, kind: str) -> dict[str, str]:
    return {"authorization": f"Bearer {site.tokens[kind]}"}


@pytest.mark.parametrize("kind", ["none", "wrong", "ended", "revoked"])
def test_who_shows_no_key_that_holds_gets_nothing_but_what_is_anyones(site: Site, kind: str) -> None:
    for route in site.routes():
        status = site.ask(route, kind).status_code
        assert (status == 401) == (route.role != "anyone"), (route.name, status)


@pytest.mark.parametrize("kind", [*ROLES, "own tenant", "static"])
def test_a_key_opens_the_routes_of_its_roles_and_no_other(site: Site, kind: str) -> None:
    for route in site.routes():
        answer = site.ask(route, kind)
        may = route.role == "anyone" or kind in (route.role, "admin", "own tenant", "static")
        assert answer.status_code not in (401, 500), (route.name, answer.text)
        assert answer.status_code != 404 or route.name in NOT_YET, (route.name, answer.text)
        assert (answer.status_code == 403) == (not may), (route.name, answer.text)
        if not may:
            refusal = answer.json()
            assert repr(route.role) in (refusal["error"]["message"] if "error" in refusal else refusal["detail"])


def told(answer: Any, loop: str) -> Any:
    return json.loads(answer.text.replace(loop, "LOOP"))


def test_a_loop_of_another_tenant_is_as_one_that_does_not_exist(site: Site) -> None:
    for route in site.routes():
        names_loop = "{loop}" in route.path or route.tag == "personalizer"
        if names_loop:
            theirs, nobodys = site.ask(route, "other tenant", "news"), site.ask(route, "other tenant", "nothing")
            assert theirs.status_code == nobodys.status_code == 404, route.name
            assert told(theirs, "news") == told(nobodys, "nothing")
            own = site.ask(route, "other tenant", "shop")
            not_filled = route.form and own.status_code == 422
            allowed = own.status_code < 300 or route.name in NOT_YET or NOT_DONE in own.text or not_filled
            assert allowed, (route.name, own.text)


def test_a_tenant_sees_its_own_loops_in_lists_explanations_and_metrics(site: Site) -> None:
    def get(path: str, kind: str) -> Any:
        return site.call("GET", path, **bearer(site, kind))

    assert get("/v1/loops", "static").json()["loops"] == ["news", "open", "shop"]
    assert get("/v1/loops", "own tenant").json()["loops"] == ["news"]
    assert get("/v1/loops", "other tenant").json()["loops"] == ["shop"]
    for query in ("", "?loop=news"):
        assert get(f"/v1/decisions/known{query}", "own tenant").status_code == 200
        assert get(f"/v1/decisions/known{query}", "other tenant").status_code == 404
    mine, theirs, all_ = (get("/metrics", kind).text for kind in ("own tenant", "other tenant", "static"))
    assert 'loop="news"' in mine
    assert 'loop="news"' not in theirs
    assert "decision_spool_depth" in all_
    assert not [line for line in mine.splitlines() if line[:1] != "#" and 'loop="news"' not in line]


def test_a_client_that_knows_its_key_alone_reaches_its_loop(site: Site) -> None:
    asked = {"actions": [{"id": "a", "features": []}, {"id": "b", "features": []}]}
    answer = site.call("POST", "/personalizer/v1.0/rank", asked, **{"ocp-apim-subscription-key": site.tokens["decide"]})
    assert answer.status_code == 201
    assert site.core.stored(answer.json()["eventId"])[0].loop == "news"


def access(site: Site, clock: Any) -> Access:
    found = Access(load_settings({}, home=site.settings.home), clock)
    found.look()
    return found


def test_a_key_that_is_taken_back_or_made_holds_from_the_next_look_on(site: Site) -> None:
    found = access(site, lambda: NOW.timestamp())
    with State(site.settings.state_url) as state:
        key, token = new_key(roles=["read"], loops=[], now=NOW, by="a test")
        headers = {b"authorization": b"Bearer " + token.encode()}
        with pytest.raises(Exception, match="needed"):
            found.of(headers)
        add(state, key, by="a test")
        found.look()
        assert found.of(headers).holds("read")
        assert not found.of(headers).holds("decide")
        revoke(state, key.id, now=NOW, by="a test")
        found.look()
        with pytest.raises(Exception, match="needed"):
            found.of(headers)
    found.close()


def test_a_key_that_is_damaged_in_state_holds_no_more_and_spoils_no_other(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    found = access(site, lambda: NOW.timestamp())
    with State(site.settings.state_url) as state:
        (key, token), (other, of_other) = (new_key(roles=["read"], loops=[], now=NOW, by="a test") for _ in range(2))
        for made in (key, other):
            add(state, made, by="a test")
        change(state, PREFIX + key.id, lambda _: b"\xff")
        for _ in range(2):
            found.look()
        with pytest.raises(Exception, match="needed"):
            found.of({b"authorization": b"Bearer " + token.encode()})
        assert found.of({b"authorization": b"Bearer " + of_other.encode()}).holds("read")
        assert [record.message for record in caplog.records] == ["a key holds no more"]
        revoke(state, other.id, now=NOW, by="a test")
        found.look()
        with pytest.raises(Exception, match="needed"):
            found.of({b"authorization": b"Bearer " + of_other.encode()})
        state.forget([PREFIX + key.id])
    found.close()


def test_what_keys_were_used_for_is_counted_over_workers(site: Site) -> None:
    workers = [access(site, lambda: NOW.timestamp() + 3_600.0) for _ in range(2)]
    with State(site.settings.state_url) as state:
        key, token = new_key(roles=["decide"], loops=[], now=NOW, by="a test", per_day=5)
        add(state, key, by="a test")
        for worker in workers:
            worker.look()
            caller = worker.of({b"authorization": b"Bearer " + token.encode()})
            caller.admit()
            caller.admit()
            worker.close()
        used = {one.id: use for one, use in listed(state)}[key.id]
    assert used is not None
    assert (used.requests, used.day) == (4, "2026-05-01")


def test_a_rate_lets_a_burst_through_and_then_so_many_a_second() -> None:
    now = [NOW.timestamp()]
    key, _ = new_key(roles=["decide"], loops=[], now=NOW, by="a test", per_second=10.0)
    holder = Holder(key, lambda: now[0])

    def taken(asked: int) -> int:
        done = 0
        for _ in range(asked):
            with suppress(TooManyError):
                holder.admit()
                done += 1
        with pytest.raises(TooManyError) as refused:
            holder.admit()
        assert 0.0 < refused.value.after_s <= 0.1
        return done

    assert taken(100) == 21
    now[0] += 1.0
    assert taken(100) == 10
    now[0] += 3_600.0
    assert taken(100) == 21


def test_a_days_requests_end_with_the_day() -> None:
    now = [NOW.timestamp()]
    key, _ = new_key(roles=["decide"], loops=[], now=NOW, by="a test", per_day=3, expires_at=NOW + timedelta(days=2))
    holder = Holder(key, lambda: now[0])
    for _ in range(3):
        holder.admit()
    with pytest.raises(TooManyError) as refused:
        holder.admit()
    assert refused.value.after_s == 86_400.0
    again = Holder(msgspec.structs.replace(key, loops=["news"]), lambda: now[0], holder)
    with pytest.raises(TooManyError):
        again.admit()  # a change of the key gives no new day
    now[0] += 86_400.0
    holder.admit()
    now[0] += 86_400.0
    with pytest.raises(EndedError):
        holder.admit()
