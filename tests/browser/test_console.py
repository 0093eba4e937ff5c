"""The console as auditors, adjudicators, administrators and owners use it: by keyboard, with and without scripts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from decision.fairness.blinding import payload
from decision.fairness.rule import Rule
from pipelines.fairness import tables as t
from tests.browser.console_server import chromium, serving, sign_in
from tests.worlds.panel_service import House
from tests.worlds.panels import LOOP, NOW, pair

pytestmark = pytest.mark.connected

CARDS = (
    {"income": 41_200.0, "debt": 3_100.0, "job.years": 6.0, "housing": "rents", "guarantor": True},
    {"income": 40_900.0, "debt": 3_100.0, "job.years": 6.0, "housing": "owns", "guarantor": True},
)
_CONTRAST = """() => {
  const linear = (v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = (c) => { const [r, g, b] = c.map(v => linear(v / 255)); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const parse = (s) => s.match(/[\\d.]+/g).map(Number);
  const ground = (e) => {
    for (; e; e = e.parentElement) {
      const c = parse(getComputedStyle(e).backgroundColor);
      if (c.length < 4 || c[3] === 1) return c.slice(0, 3);
    }
    return [255, 255, 255];
  };
  let worst = [99, ''];
  for (const e of document.querySelectorAll('body *')) {
    const text = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    if (!text || e.closest('script, style')) continue;
    const a = light(parse(getComputedStyle(e).color).slice(0, 3)), b = light(ground(e));
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < worst[0]) worst = [ratio, e.outerHTML.slice(0, 80)];
  }
  return worst;
}"""


def shown_pair(high: float = 0.83, low: float = 0.31) -> Any:
    made: Any = payload(CARDS[0], CARDS[1], (high, low), treatment="getting the loan")
    return pair(high, low, payload=made)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as made:
        yield made


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path)
    yield made
    made.close()


@pytest.fixture
def address(house: House) -> Iterator[str]:
    with serving(house.app) as made:
        yield made


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 1180, "height": 1000})
    made = context.new_page()
    problems: list[str] = []
    made.on("pageerror", lambda error: problems.append(str(error)))
    made.on("console", lambda said: problems.append(said.text) if said.type == "error" else None)
    yield made
    context.close()
    assert [problem for problem in problems if "Failed to load resource" not in problem] == []  # those are answers


def said_of(house: House) -> list[tuple[str, float | None, str]]:
    rows = house.store.rows(sa.select(t.judgements).order_by(t.judgements.c.judged_at))
    return [(row["verdict"], row["acceptable"], row["reason"]) for row in rows]


def test_an_auditor_works_through_the_queue_without_a_mouse(house: House, address: str, page: Any) -> None:
    house.panel.open(shown_pair(), shown_pair(0.9, 0.2), shown_pair(0.7, 0.6), rule=Rule(auditors=5))
    sign_in(page, address, house.panel.keys[0])
    page.get_by_role("heading", name="Person A").wait_for()
    assert page.get_by_text("Pair 1 of 3").is_visible()
    page.keyboard.press("j")
    page.get_by_text("Pair 2 of 3").wait_for()
    page.keyboard.press("k")
    page.get_by_text("Pair 1 of 3").wait_for()
    page.keyboard.press("1")
    page.keyboard.press("r")
    page.keyboard.type("The same in all that counts, j and 2 included.")
    page.keyboard.press("Escape")
    page.keyboard.press("Enter")
    page.get_by_role("status").filter(has_text="Your judgement is saved. 2 left.").wait_for()
    page.keyboard.press("2")
    page.keyboard.press("Enter")
    page.get_by_role("status").filter(has_text="1 left").wait_for()
    page.keyboard.press("3")
    page.keyboard.press("Enter")
    page.get_by_text("There is nothing for you to judge now").wait_for()
    assert said_of(house) == [
        ("unfair", 0.0, "The same in all that counts, j and 2 included."),
        ("fair", 1.0, ""),
        ("cannot_tell", None, ""),
    ]


def test_review_works_without_scripts_and_by_tab_alone(house: House, address: str, browser: Any) -> None:
    house.panel.open(shown_pair())
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    sign_in(page, address, house.panel.keys[0])
    order: list[str] = []
    for _ in range(12):
        page.keyboard.press("Tab")
        focused = page.locator(":focus")
        name = focused.get_attribute("id") or focused.inner_text()
        order.append(name)
        if name == "Save judgement":
            break
    wanted = ["Skip to the content", "Review", "Sign out", "unfair", "acceptable", "reason", "Save judgement"]
    assert order == wanted  # the radio group is one stop; arrows move inside it
    page.locator("#unfair").focus()
    page.keyboard.press("ArrowDown")
    assert page.locator("#fair").is_checked()
    page.get_by_role("button", name="Save judgement").focus()
    page.keyboard.press("Enter")
    page.get_by_role("status").filter(has_text="saved").wait_for()
    assert said_of(house) == [("fair", 1.0, "")]
    context.close()


def test_what_is_wrong_with_a_judgement_is_said_at_its_field_and_nothing_typed_is_lost(
    house: House, address: str, page: Any
) -> None:
    house.panel.open(shown_pair())
    sign_in(page, address, house.panel.keys[0])
    page.get_by_label("Unfair").check()
    page.get_by_label("Largest difference you would accept").select_option("1.0")
    page.get_by_label("Why?").fill("Too alike.")
    page.get_by_role("button", name="Save judgement").click()
    page.get_by_role("alert").filter(has_text="Acceptable must be a number below the gap").wait_for()
    assert page.get_by_label("Largest difference you would accept").get_attribute("aria-invalid") == "true"
    assert page.get_by_label("Unfair").is_checked()
    assert page.get_by_label("Why?").input_value() == "Too alike."
    assert said_of(house) == []


def test_the_page_tells_screen_readers_what_it_shows(house: House, address: str, page: Any) -> None:
    house.panel.open(shown_pair())
    sign_in(page, address, house.panel.keys[0])
    assert page.locator("html").get_attribute("lang") == "en"
    assert page.title() == "Review · Decision console"
    for name in ("Person A", "Person B"):
        region = page.get_by_role("region", name=name)
        assert region.get_by_role("table").count() == 1
    differing = page.get_by_role("region", name="Person A").get_by_role("row").filter(has_text="(differs)")
    assert [row.get_by_role("rowheader").inner_text() for row in differing.all()] == ["housing", "income"]
    assert page.get_by_role("group", name="Is the difference between the two probabilities fair?").count() == 1
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll('input:not([type=hidden]), select, textarea, button')]
        .filter(e => !(e.labels && e.labels.length) && !e.innerText.trim()).length"""
    )
    assert unnamed == 0
    assert page.get_by_text("52.0 percentage points").is_visible()  # probabilities stand before the verdict


def test_text_has_enough_contrast(house: House, address: str, page: Any) -> None:
    """WCAG 2.2 level AA asks for 4.5 to 1."""
    house.panel.open(shown_pair())
    sign_in(page, address, house.panel.keys[0])
    worst = page.evaluate(_CONTRAST)
    assert worst[0] >= 4.5, worst


def test_an_adjudicator_decides_a_dispute(house: House, address: str, page: Any) -> None:
    (task,) = house.panel.open(shown_pair(), rule=Rule(quorum=0.9))
    house.panel.judge(task, "unfair", "unfair", "fair", "fair", "fair")
    sign_in(page, address, house.keys["adjudicator"])
    page.get_by_text("The panel: 2 unfair, 3 fair, 0 cannot tell; 5 were needed.").wait_for()
    page.get_by_label("Uphold").check()
    page.get_by_label("Your reasons").fill("Nothing that counts differs.")
    page.get_by_role("button", name="Decide").click()
    page.get_by_text("No pair waits for an adjudicator").wait_for()
    (row,) = house.store.rows(sa.select(t.tasks.c.status))
    assert row["status"] == "upheld"


def test_an_administrator_adds_people_draws_panels_and_revokes(house: House, address: str, page: Any) -> None:
    house.panel.open(shown_pair())
    sign_in(page, address, house.keys["administrator"])
    page.get_by_label("Name").fill("Grace <b>H.</b>")
    page.get_by_label("auditor").check()
    page.get_by_role("button", name="Add and show the key").click()
    key = page.locator("#new-key").inner_text()
    assert key.startswith("dsk_")
    assert page.get_by_role("rowheader", name="Grace <b>H.</b>").count() == 1
    page.get_by_role("button", name=f"Draw panels for {LOOP}").click()
    page.get_by_role("status").filter(has_text="0 panels drawn").wait_for()
    page.get_by_role("button", name="Revoke the key of Grace").click()
    page.get_by_text("revoked").wait_for()
    from pipelines.fairness.people import by_key

    assert by_key(house.store, key) is None


def test_the_dashboard_shows_rate_agreement_frontier_and_worst_pairs(house: House, address: str, page: Any) -> None:
    probes = [shown_pair(0.9, 0.2 + 0.05 * i) for i in range(6)]
    import msgspec

    probes = [msgspec.structs.replace(p, rank=0, stratum=1, inclusion=0.1, population=200) for p in probes]
    for number, task in enumerate(house.panel.open(*probes, stream="probe")):
        house.panel.judge(task, *(["unfair"] * 4 + ["fair"] if number < 2 else ["fair"] * 4 + ["unfair"]))
    for version, violating, value, passed in (("1", 2, 0.61, False), ("2", 0, 0.59, True)):
        numbers = {"fairness_upheld": 2.0, "fairness_violating": float(violating), "fairness_value": value}
        with house.store.write(NOW, "test") as writing:
            writing.log("gate", LOOP, {"version": version, "numbers": numbers, "passed": passed})
    sign_in(page, address, house.keys["owner"])
    page.get_by_role("heading", name=f"Fairness of {LOOP}").wait_for()
    assert page.get_by_text("10.0 %", exact=True).is_visible()  # 2 of 6 probes, each standing for 10, of 200 pairs
    assert page.get_by_role("img", name="Reward against violations by version").count() == 1
    page.get_by_text("The same as a table").click()
    assert page.get_by_role("row").filter(has_text="refused").filter(has_text="100.0 %").count() == 1
    assert page.get_by_role("row").filter(has_text="70.0 %").first.is_visible()
    assert page.get_by_role("link", name="Review").count() == 0
    page.goto(f"{address}/console/fairness/other")
    page.get_by_text("another owner").wait_for()
