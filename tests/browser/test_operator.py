"""The operator's job in a real browser: see what is wrong, find out why, act; by keyboard and without scripts, too."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from pipelines.evaluation.standing import Alarm
from pipelines.guard.store import GuardStore
from tests.browser.console_server import barriers, chromium, serving
from tests.worlds.operated import Operated

pytestmark = pytest.mark.connected

FELL = Alarm(kind="value", text="rewards fell from 0.52 to 0.31 a decision")
QUESTION: dict[str, Any] = {
    "event_id": "seen",
    "context": {"c0": 1.0, "c1": 0.5},
    "actions": [{"id": "a", "features": {"a0": 1.0}}, {"id": "b", "features": {"a1": 0.3}}],
}
PAGES = (
    "/console/login",
    "/console/loops",
    "/console/loops/shop",
    "/console/loops/young",
    "/console/loops/shop/decisions/seen",
    "/console/loops/shop/nights/20251231T000000.000000",
    "/console/loops/shop/stop",
    "/console/loops/shop/rollback",
    "/console/loops/shop/clear?alarm=value",
    "/console/loops/shop/settings",
    "/console/loops/nothing",
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as made:
        yield made


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operated]:
    made = Operated(tmp_path_factory.mktemp("home"), alarms=(FELL,), new="young")
    yield made
    made.close()


@pytest.fixture(scope="module")
def address(site: Operated) -> Iterator[str]:
    with serving(site.call.app) as made:
        httpx.post(f"{made}/v1/loops/shop/decide", json=QUESTION, timeout=300).raise_for_status()
        yield made


def kinds(site: Operated) -> list[str]:
    store = GuardStore(site.settings, "shop")
    try:
        return [move.kind for move in store.moves()]
    finally:
        store.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_no_page_shuts_anybody_out_or_is_wider_than_the_screen(
    browser: Any, address: str, scheme: Any, width: int
) -> None:
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    for path in PAGES:
        answer = page.goto(address + path)
        assert answer.status == (404 if path.endswith("/nothing") else 200), path
        assert barriers(page, width) == [], path
    context.close()


@pytest.mark.parametrize("name", ["Versions", "Changes", "Nights"])
def test_a_phone_shows_what_is_opened_as_wide_as_the_screen_and_under_names(
    browser: Any, address: str, name: str
) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 844})
    page = context.new_page()
    page.goto(f"{address}/console/loops/shop")
    table = page.get_by_role("region", name=name).get_by_role("table")
    row = table.get_by_role("row").nth(1)
    assert row.get_by_role("cell").count() >= 2  # it is a table for those who hear it
    if (why := table.locator("summary")).count():
        why.first.click()
        assert table.locator("details ul").first.bounding_box()["width"] > 300
    assert all(
        one.evaluate("e => getComputedStyle(e, '::before').content") != "none" for one in row.locator("td.number").all()
    )
    assert barriers(page, 390) == []
    context.close()


def test_an_operator_sees_an_alarm_finds_its_loop_explains_a_decision_and_stops_the_rollout(
    site: Operated, browser: Any, address: str
) -> None:
    context = browser.new_context()
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda said: problems.append(said.text) if said.type == "error" else None)
    page.goto(address)
    page.get_by_text("Rewards fell from 0.52 to 0.31 a decision.").wait_for()
    page.get_by_role("link", name="shop").click()
    page.get_by_role("img", name="Mean reward over").wait_for()
    page.get_by_label("Explain the decision of event").fill("seen")
    page.keyboard.press("Enter")
    page.get_by_text("Draw repeated").wait_for()
    page.get_by_role("link", name="shop").click()
    page.get_by_role("link", name="Stop the rollout").click()
    page.get_by_role("heading", name="Stop the rollout: shop?").wait_for()
    before = kinds(site)
    page.get_by_role("link", name="Do nothing").click()
    assert kinds(site) == before
    page.get_by_role("link", name="Stop the rollout").click()
    page.get_by_role("button", name="Stop the rollout").click()
    page.get_by_role("status").filter(has_text="The rollout is stopped").wait_for()
    assert kinds(site) == [*before, "stopped"]
    page.get_by_role("link", name="Resume the rollout").click()
    page.get_by_role("button", name="Resume the rollout").click()
    page.get_by_role("status").filter(has_text="The rollout goes on").wait_for()
    assert problems == []
    context.close()


def test_settings_change_by_keyboard_and_without_scripts(site: Operated, browser: Any, address: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{address}/console/loops/young/settings")
    page.keyboard.press("Tab")
    assert page.locator(":focus").inner_text() == "Skip to the content"
    page.get_by_label("TOML").fill("[reward]\nwindow_s = 45.0\n")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    row = page.get_by_role("row").filter(has_text="reward.window_s")
    assert row.inner_text().split()[-1] == "45"
    page.get_by_role("button", name="Put them into force").focus()
    page.keyboard.press("Enter")
    page.get_by_role("status").filter(has_text="The settings are in force").wait_for()
    assert site.settings.loop_path("young").read_text() == "[reward]\nwindow_s = 45.0\n"
    context.close()


def test_the_first_page_renews_itself(site: Operated, browser: Any, address: str) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.clock.install()
    page.goto(f"{address}/console/loops")
    page.get_by_role("link", name="young").wait_for()
    before = page.locator("section", has=page.get_by_role("link", name="young")).get_by_text("No decision was asked")
    assert before.is_visible()
    httpx.post(f"{address}/v1/loops/young/decide", json=QUESTION, timeout=300).raise_for_status()
    for _ in range(3):
        page.clock.run_for(5_000)
        page.wait_for_timeout(100)
    before.wait_for(state="detached")
    context.close()
