"""The operators' pages: what they show, who sees them, and that an action asks first and is kept with who did it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from html import unescape
from pathlib import Path
from typing import Any

import httpx
import pytest

from pipelines.access.keys import add, new_key
from pipelines.evaluation.standing import Alarm
from pipelines.guard.store import GuardStore
from pipelines.state.state import State
from tests.worlds.operated import Operated

HTML = {"accept": "text/html"}
QUESTION: dict[str, Any] = {
    "event_id": "seen",
    "context": {"c0": 1.0, "c1": 0.5},
    "actions": [{"id": "a", "features": {"a0": 1.0}}, {"id": "b<i>", "features": {"a1": 0.3}}],
}
FELL = Alarm(kind="value", text="rewards fell from 0.52 to 0.31 a decision")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operated]:
    made = Operated(tmp_path_factory.mktemp("home"), alarms=(FELL,), failed=True)
    made.call("POST", "/v1/loops/shop/decide", QUESTION)
    made.call("POST", "/v1/loops/shop/outcomes", {"event_id": "seen", "value": 1.0})
    yield made
    made.close()


class Browser:
    """Keeps cookies, and sends forms with the token that their page holds."""

    def __init__(self, site: Operated, **headers: str) -> None:
        self.site, self.cookies, self.headers = site, dict[str, str](), HTML | headers

    def get(self, path: str) -> httpx.Response:
        return self._kept(self.site.call("GET", path, **self._sent()))

    def post(self, path: str, page: str = "", *, token: str | None = None, **fields: str) -> httpx.Response:
        if token is None:
            found = re.search(r'name="form" value="([^"]+)"', self.get(page or path).text)
            token = "" if found is None else found[1]
        body = str(httpx.QueryParams({"form": token, **fields})).encode()
        kind = {"content-type": "application/x-www-form-urlencoded"}
        return self._kept(self.site.call("POST", path, body, **kind, **self._sent()))

    def _sent(self) -> dict[str, str]:
        held = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        return self.headers | ({"cookie": held} if held else {})

    def _kept(self, answer: httpx.Response) -> httpx.Response:
        self.cookies |= dict(answer.cookies)
        return answer


def test_the_root_leads_to_the_loops(site: Operated) -> None:
    browser = Browser(site)
    first = browser.get("/")
    assert (first.status_code, first.headers["location"]) == (303, "/console/")
    assert browser.get("/console/").headers["location"] == "/console/loops"


def test_the_first_page_shows_alarms_values_with_intervals_and_what_to_do_with_a_new_loop(site: Operated) -> None:
    text = Browser(site).get("/console/loops").text
    assert "Rewards fell from 0.52 to 0.31 a decision." in text
    assert "failed: train: the disk is full" in text
    mean, low, high = map(float, re.findall(r"<dd>([\d.]+)<small>([\d.]+) to ([\d.]+), at every look", text)[0])
    assert low < mean < high
    assert "rolling out version 2 at" in text
    assert "decision demo" not in text
    assert "/v1/loops/fresh/decide" in text  # the command to ask for a first decision
    assert text.index("loop-shop") < text.index("loop-fresh")  # what asks for the most comes first


def test_a_loops_page_shows_versions_ladder_exploration_changes_and_nights(site: Operated) -> None:
    text = Browser(site).get("/console/loops/shop").text
    for wanted in (
        "in charge",
        "rolled out",
        "Ladder",
        "It is worse",
        "Calibration error",
        "action-3",
        "Rollout began",
    ):
        assert wanted in text, wanted
    assert "is not above the margin" in text
    assert text.count("<svg") >= 3


def test_a_night_is_told_in_words_from_its_loops_page(site: Operated) -> None:
    browser = Browser(site)
    way = re.search(r'href="(/console/loops/shop/nights/[^"]+)"', browser.get("/console/loops/shop").text)
    assert way is not None
    page = browser.get(way[1])
    assert page.status_code == 200
    assert "the disk is full" in page.text  # the latest one failed
    assert browser.get("/console/loops/shop/nights/never").status_code == 404


def test_a_new_loops_page_says_what_to_do(site: Operated) -> None:
    text = Browser(site).get("/console/loops/fresh").text
    assert "decision nightly fresh" in text
    assert "enabled = true" in text  # of the guard


def test_a_decisions_page_shows_scores_distributions_features_and_the_draw(site: Operated) -> None:
    browser = Browser(site)
    went = browser.get("/console/loops/shop/find?event_id=seen")
    text = browser.get(went.headers["location"]).text
    assert "b&lt;i&gt;" in text
    assert "b<i>" not in text
    for wanted in ("Draw repeated", "The model is linear", "<code>c0</code>", "Candidate", "In charge", "reward"):
        assert wanted in text, wanted
    assert browser.get("/console/loops/shop/decisions/never").status_code == 404


def test_what_the_features_of_a_linear_model_add_makes_up_the_score(site: Operated) -> None:
    from serving.console.explaining import effects
    from serving.explaining.explain import batch_of

    (record,) = site.core.explain("seen", "shop").decisions
    policy: Any = site.core.policy_of(record)
    assert record.scores is not None
    context_alone = batch_of(record)
    rows, left_out = effects(policy, context_alone, record.action_index, record.scores)
    assert rows == sorted(rows, key=lambda row: -abs(row.adds))
    assert left_out + len(rows) == len(context_alone.contexts[0]) + len(context_alone.actions[record.action_index])


def moves(site: Operated) -> list[Any]:
    store = GuardStore(site.settings, "shop")
    try:
        return store.moves()
    finally:
        store.close()


def test_a_page_names_a_baseline_as_such_and_not_as_a_version(site: Operated) -> None:
    assert "Now: version 1 decides." in Browser(site).get("/console/loops/shop/rollback").text
    assert "Now: the baseline (uniform) decides." in Browser(site).get("/console/loops/fresh/rollback").text
    assert "of the traffic beside version 1" in Browser(site).get("/console/loops/shop").text


def test_an_action_asks_first_and_is_kept_with_who_did_it(site: Operated) -> None:
    browser = Browser(site)
    before = len(moves(site))
    asked = browser.get("/console/loops/shop/cap")
    assert "somebody on this machine" in asked.text
    assert len(moves(site)) == before
    wrong = browser.post("/console/loops/shop/cap", cap="140")
    assert wrong.status_code == 422
    assert "Cap must be a number of percent from 0 to 100" in wrong.text
    assert len(moves(site)) == before
    done = browser.post("/console/loops/shop/cap", cap="3")
    assert done.status_code == 303
    assert "The cap is 3 %" in browser.get(done.headers["location"]).text
    (move,) = moves(site)[before:]
    assert (move.kind, move.reason) == ("capped", "capped by somebody on this machine")
    assert "somebody on this machine" in browser.get("/console/loops/shop").text


def test_a_share_below_one_percent_is_not_told_as_none(site: Operated) -> None:
    browser = Browser(site)
    done = browser.post("/console/loops/shop/cap", cap="0.3")
    assert "The cap is 0.3 %; the candidate has 0.3 %" in browser.get(done.headers["location"]).text
    assert "version 2 has 0.3 % of the traffic" in browser.get("/console/loops/shop/cap").text


def test_stop_freeze_and_resume_do_what_they_say(site: Operated) -> None:
    browser = Browser(site)
    for action, kind in (("stop", "stopped"), ("resume", "resumed"), ("freeze", "capped")):
        assert browser.post(f"/console/loops/shop/{action}").status_code == 303
        assert moves(site)[-1].kind == kind
    assert browser.post("/console/loops/fresh/stop", "/console/loops/shop/stop").status_code == 422  # it has no guard
    assert "so there is no rollout" in browser.get("/console/loops/fresh/stop").text


def test_a_loop_s_page_shows_what_was_done_before_the_service_has_looked_again(tmp_path: Path) -> None:
    site = Operated(tmp_path, new="idle", reload_s=600.0)
    browser = Browser(site)

    def after(action: str, **fields: str) -> str:
        done = browser.post(f"/console/loops/shop/{action}", **fields)
        return browser.get(done.headers["location"]).text

    try:
        assert "rolling out version 2 at 3 %" in after("cap", cap="3")
        page = after("freeze")
        assert "The share is held at 3 %" in page
        assert "An operator capped it at 3 %. It is promoted only from the top of the ladder" in page
        store = GuardStore(site.settings, "shop")
        assert store.load().cap == 0.03
        store.close()
        assert "rolling out" not in after("stop").split("Mode:")[0]
        assert "rolling out version 2 at 3 %" in after("resume")
        assert "within seconds" not in browser.get("/console/loops/shop").text
        page = after("rollback", reason="slow")
        assert "Decided by version 1; within seconds by the baseline (uniform)" in page
    finally:
        site.close()


def test_a_loop_s_page_says_that_a_share_has_expired_and_what_is_served(tmp_path: Path) -> None:
    site = Operated(tmp_path, new="resting")
    try:
        assert "That has expired" not in Browser(site).get("/console/loops/shop").text
        site.shop.now += timedelta(seconds=site.core.snapshot("shop").loop.guard.ttl_s + 60)
        page = Browser(site).get("/console/loops/shop").text
        assert "since the guard did not run in time: 5 % is served" in page
        assert "decision guard shop" in page
    finally:
        site.close()


def test_settings_show_what_would_change_before_they_change_and_keep_who_did_it(site: Operated) -> None:
    browser, path = Browser(site), "/console/loops/fresh/settings"
    file = site.settings.loop_path("fresh")
    before, now = file.read_text(), "[reward]\nwindow_s = 30.0\n"
    shown = browser.post(path, settings=now, before=before)
    assert shown.status_code == 200
    assert "reward.window_s" in shown.text
    assert file.read_text() == before
    wrong = browser.post(path, settings="[reward]\nwindow_s = -1.0\n", before=before)
    assert wrong.status_code == 422
    assert "reward.window_s" in wrong.text
    assert browser.post(path, settings=now, before=before, confirmed="yes").status_code == 303
    assert file.read_text() == now
    site.core.loops.refresh()
    page = browser.get("/console/loops/fresh").text
    assert "reward.window_s" in page
    assert "somebody on this machine" in page
    late = browser.post(path, settings=before, before="mode = 'online'", confirmed="yes")
    assert late.status_code == 409  # somebody else was faster
    assert file.read_text() == now


def test_the_first_settings_are_told_against_the_defaults_and_what_was_empty_has_a_word(site: Operated) -> None:
    file = site.settings.loop_path("told")
    file.parent.mkdir(parents=True)
    file.write_text(before := "[reward]\nwindow_s = 30.0\n")
    site.core.loops.refresh()
    browser, path = Browser(site), "/console/loops/told/settings"
    now = before + '[fairness]\naction = "a"\nprotected = ["sex", "name"]\n'
    assert browser.post(path, settings=now, before=before, confirmed="yes").status_code == 303
    site.core.loops.refresh()
    told = unescape(browser.get("/console/loops/told").text).partition("What changed lately")[2]
    for change in (
        "First settings",
        "reward.window_s: 600 → 30",
        "Settings applied",
        "fairness.protected: none → sex, name",
        "fairness.action: empty → a",
    ):
        assert change in told, change


@pytest.mark.parametrize("token", ["", "x" * 64])
def test_a_form_without_the_token_of_its_page_changes_nothing(site: Operated, token: str) -> None:
    before = len(moves(site))
    refused = Browser(site).post("/console/loops/shop/stop", token=token)
    assert refused.status_code == 403
    assert "open the page again" in refused.text
    assert len(moves(site)) == before


class Keyed:
    """The same with keys; roles by name."""

    def __init__(self, home: Path) -> None:
        self.site = Operated(home, nights=2, api_keys="of-the-environment")
        now = datetime(2025, 1, 1, tzinfo=UTC)
        self.keys, self.ids = {"static": "of-the-environment"}, dict[str, str]()
        with State(self.site.settings.state_url) as state:
            for name, roles, tenant in (
                ("read", ["read"], ""),
                ("operate", ["read", "operate"], ""),
                ("other", ["admin"], "acme"),
                ("limited", ["read", "operate"], ""),
            ):
                loops = ["fresh"] if name == "limited" else []
                key, self.keys[name] = new_key(roles=roles, loops=loops, tenant=tenant, now=now, by="a test")
                add(state, key, by="a test")
                self.ids[name] = key.id
        app = self.site.call.app
        _ = app.core
        assert app._access is not None
        app._access.look()

    def signed_in(self, name: str, **headers: str) -> Browser:
        browser = Browser(self.site, **headers)
        answer = browser.post("/console/login", token="", key=self.keys[name])
        assert (answer.status_code, answer.headers["location"]) == (303, "/console/loops")
        return browser


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    made = Keyed(tmp_path_factory.mktemp("keyed"))
    yield made
    made.site.close()


def test_who_is_not_signed_in_is_asked_to(keyed: Keyed) -> None:
    browser = Browser(keyed.site)
    assert browser.get("/console/loops").headers["location"] == "/console/login"
    assert "Operators sign in with an API key" in browser.get("/console/login").text
    assert browser.post("/console/login", token="", key="dk_no").status_code == 401
    assert browser.post("/console/loops/shop/stop", token="").status_code == 401


def test_a_reader_sees_and_an_operator_acts_under_the_name_of_the_key(keyed: Keyed) -> None:
    reader, operator = keyed.signed_in("read"), keyed.signed_in("operate")
    page = reader.get("/console/loops/shop")
    assert page.status_code == 200
    assert "/console/loops/shop/stop" not in page.text
    assert reader.get("/console/loops/shop/stop").status_code == 403
    assert reader.get("/console/loops/shop/decisions/x").status_code == 403  # features of people are in it
    assert operator.post("/console/loops/shop/stop").status_code == 303
    assert moves(keyed.site)[-1].reason == f"stopped by key {keyed.ids['operate']}"
    assert operator.post("/console/loops/shop/stop", surprise="x").status_code == 422


def test_another_tenant_sees_nothing_of_a_loop(keyed: Keyed) -> None:
    other = keyed.signed_in("other")
    assert "shop" not in other.get("/console/loops").text
    for path in ("", "/stop", "/settings", "/decisions/x"):
        assert other.get(f"/console/loops/shop{path}").status_code == 404


def test_who_sees_some_loops_alone_gives_none_of_them_away(keyed: Keyed) -> None:
    limited, path = keyed.signed_in("limited"), "/console/loops/fresh/settings"
    given = limited.post(path, settings='tenant = "acme"', before="", confirmed="yes")
    assert given.status_code == 422
    assert "tenant: must be" in given.text
    assert limited.post(path, settings="mode = 'online'", before="", confirmed="yes").status_code == 303
    assert limited.get("/console/loops/shop").status_code == 404


def test_a_page_of_another_site_cannot_use_a_session(keyed: Keyed) -> None:
    operator = keyed.signed_in("operate")
    found = re.search(r'name="form" value="([^"]+)"', operator.get("/console/loops/shop/resume").text)
    assert found is not None
    before = len(moves(keyed.site))
    for header, value in (("sec-fetch-site", "cross-site"), ("origin", "http://evil.example")):
        operator.headers = HTML | {header: value}
        assert operator.post("/console/loops/shop/resume", token=found[1]).status_code == 403
    assert len(moves(keyed.site)) == before


def test_a_session_ends_when_it_is_left_and_with_its_key(keyed: Keyed) -> None:
    from pipelines.access.keys import revoke

    static = keyed.signed_in("static")
    held = dict(static.cookies)
    assert static.post("/console/signout", "/console/loops").headers["location"] == "/console/login"
    static.cookies = held
    assert static.get("/console/loops").headers["location"] == "/console/login"
    reader = keyed.signed_in("read")
    with State(keyed.site.settings.state_url) as state:
        revoke(state, keyed.ids["read"], now=datetime(2025, 1, 1, tzinfo=UTC), by="a test")
    access: Any = keyed.site.call.app._access
    access.look()
    assert reader.get("/console/loops").headers["location"] == "/console/login"


def test_what_a_browser_keeps_is_out_of_reach_of_scripts_and_of_other_sites(keyed: Keyed) -> None:
    answer = Browser(keyed.site).post("/console/login", token="", key=keyed.keys["operate"])
    kept = answer.headers["set-cookie"].lower()
    assert all(word in kept for word in ("httponly", "samesite=strict", "path=/console"))
    page = keyed.signed_in("operate").get("/console/loops")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert page.headers["cache-control"] == "no-store"


def test_a_loop_s_page_says_what_drifted_in_words_worst_first(site: Operated) -> None:
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", Browser(site).get("/console/loops/shop").text))
    rows = (
        "device moved new: “watch” (5.0 %); phone: 71.0 %, 40.0 % in training 0.310",
        "hour differs",
        "price of the actions",
    )
    places = [text.index(row) for row in rows]
    assert places == sorted(places)
    assert "missing in 20.0 %, 10.0 % in training" in text
    assert "all decisions changed 0.3 0.5 100.0 %" in text


def test_an_alarm_is_cleared_behind_a_confirmation_with_who_did_it(tmp_path: Path) -> None:
    site = Operated(tmp_path, alarms=(FELL, Alarm(kind="untried", subject="a b", text="a b was never tried")), nights=2)
    browser = Browser(site)
    page = browser.get("/console/loops/shop").text
    assert "Found by every night since" in page
    assert FELL.to_do in unescape(page)
    assert 'href="/console/loops/shop/clear?alarm=untried%3Aa%20b"' in page
    asks = browser.get("/console/loops/shop/clear?alarm=untried%3Aa%20b").text
    assert '<option value="untried:a b" selected>' in asks
    done = browser.post("/console/loops/shop/clear", alarm="untried:a b")
    assert done.status_code == 303
    after = browser.get("/console/loops/shop").text
    assert "a b was never tried" not in after.partition("What changed lately")[0]
    assert "Alarm cleared: untried:a b" in after
    assert "somebody on this machine" in after
    assert browser.post("/console/loops/shop/clear", alarm="joins").status_code == 422
    assert browser.post("/console/loops/shop/clear", alarm="all").status_code == 303
    assert "No alarm stands" in browser.get("/console/loops/shop/clear").text
    site.close()
