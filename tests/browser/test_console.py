"""The console as auditors, adjudicators, administrators and owners use it: by keyboard, with and without scripts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from decision.fairness.blinding import payload
from decision.fairness.pair_name import pair_name
from decision.fairness.rule import Rule
from pipelines.fairness import tables as t
from tests.browser.console_server import barriers, chromium, serving, sign_in, sign_in_to_judge
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


def _keys_work(page: Any) -> None:
    """Wait until the whole page is there, and with it what listens to the keyboard."""
    page.wait_for_load_state()


def test_an_auditor_works_through_the_queue_without_a_mouse(house: House, address: str, page: Any) -> None:
    house.panel.open(shown_pair(), shown_pair(0.9, 0.2), shown_pair(0.7, 0.6), rule=Rule(auditors=5))
    sign_in_to_judge(page, address, house.panel.keys[0])
    page.get_by_role("heading", name="Person A").wait_for()
    assert page.get_by_text("3 left to judge, this is number 1 · 0 judged").is_visible()
    _keys_work(page)
    page.keyboard.press("j")
    page.get_by_text("3 left to judge, this is number 2").wait_for()
    _keys_work(page)
    page.keyboard.press("k")
    page.get_by_text("3 left to judge, this is number 1").wait_for()
    _keys_work(page)
    name = page.get_by_role("heading", level=1).inner_text()
    page.keyboard.press("1")
    page.keyboard.press("r")
    page.keyboard.type("The same in all that counts, j and 2 included.")
    page.keyboard.press("Escape")
    page.keyboard.press("Enter")
    page.get_by_role("status").filter(has_text=f"Your judgement of {name} is saved. 2 left.").wait_for()
    assert page.get_by_text("2 left to judge, this is number 1 · 1 judged").is_visible()
    _keys_work(page)
    page.keyboard.press("2")
    page.keyboard.press("Enter")
    page.get_by_role("status").filter(has_text="1 left").wait_for()
    _keys_work(page)
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
    sign_in_to_judge(page, address, house.panel.keys[0])
    order: list[str] = []
    for _ in range(12):
        page.keyboard.press("Tab")
        focused = page.locator(":focus")
        name = focused.get_attribute("id") or focused.inner_text()
        order.append(name)
        if name == "Save judgement":
            break
    pages = ["Review", "What I judged", "How it works"]
    wanted = ["Skip to the content", *pages, "Sign out", "unfair", "acceptable", "reason", "Save judgement"]
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
    sign_in_to_judge(page, address, house.panel.keys[0])
    page.get_by_label("Unfair").check()
    page.get_by_label("Largest difference you would accept").select_option("1.0")
    page.get_by_label("Why?").fill("Too alike.")
    page.get_by_role("button", name="Save judgement").click()
    page.get_by_role("alert").filter(
        has_text="so the largest one that you would accept must be less than the 52 points of this pair."
    ).wait_for()
    assert page.get_by_label("Largest difference you would accept").get_attribute("aria-invalid") == "true"
    assert page.get_by_label("Unfair").is_checked()
    assert page.get_by_label("Why?").input_value() == "Too alike."
    assert said_of(house) == []


def test_the_page_tells_screen_readers_what_it_shows(house: House, address: str, page: Any) -> None:
    house.panel.open(shown_pair())
    sign_in_to_judge(page, address, house.panel.keys[0])
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
    assert page.get_by_text("a difference of 52 points").is_visible()  # probabilities stand before the verdict


def test_text_has_enough_contrast(house: House, address: str, page: Any) -> None:
    """WCAG 2.2 level AA asks for 4.5 to 1."""
    house.panel.open(shown_pair())
    sign_in_to_judge(page, address, house.panel.keys[0])
    worst = page.evaluate(_CONTRAST)
    assert worst[0] >= 4.5, worst


def test_a_first_visit_begins_with_the_tour_and_the_second_does_not(house: House, address: str, browser: Any) -> None:
    house.panel.open(shown_pair())
    for _ in range(2):
        context = browser.new_context(java_script_enabled=False)
        page = context.new_page()
        sign_in(page, address, house.panel.keys[1])
        if page.url.endswith("/console/tour"):
            assert page.get_by_role("heading", name="How it works").is_visible()
            page.get_by_role("button", name="Show me my first pair").focus()
            page.keyboard.press("Enter")
            page.wait_for_url("**/console/review")
            first = True
        else:
            assert page.url.endswith("/console/review")
            first = False
        context.close()
    assert not first
    assert [entry.actor for entry in house.store.entries(kind="tour_taken")] == [house.panel.people[1].person_id]


def test_an_auditor_sees_how_the_panel_decided_and_appeals_and_the_owner_reads_why(
    house: House, address: str, browser: Any
) -> None:
    (task,) = house.panel.open(shown_pair())
    house.panel.judge(task, "fair", "unfair", "unfair", "unfair", "unfair")
    name = pair_name(task)
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    sign_in(page, address, house.panel.keys[0])
    page.get_by_role("link", name="What I judged").click()
    page.get_by_text("the 5 of you agree hardly more than chance would have it").wait_for()
    assert page.get_by_text("Krippendorff’s alpha 0.00; 60.0 % of pairs of judgements are equal").is_visible()
    assert page.get_by_text("Your panels found as you did on 0 of 1 pairs.").is_visible()
    row = page.get_by_role("row").filter(has_text=name)
    assert row.filter(has_text="The panel upheld it: 4 of 5 found it unfair, 3 were needed.").count() == 1
    page.get_by_role("link", name=name).click()
    page.get_by_label("Why is the verdict wrong?").fill("One rents, one owns.")
    page.get_by_role("button", name="Appeal the verdict").focus()
    page.keyboard.press("Enter")
    page.get_by_role("status").filter(has_text="Your appeal is written down").wait_for()
    assert page.get_by_text("You appealed: “One rents, one owns.”").is_visible()
    assert page.get_by_role("button", name="Appeal the verdict").count() == 0
    context.close()

    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    sign_in(page, address, house.keys["owner"])
    page.get_by_role("link", name="All verdicts").click()
    page.get_by_text("A member of the panel appealed: “One rents, one owns.”").wait_for()
    page.get_by_role("link", name=name).click()
    page.get_by_text("Nothing, until an adjudicator decides").wait_for()
    assert page.get_by_role("row").filter(has_text="When it was judged").filter(has_text="52 points").count() == 1
    assert "Auditor 0" not in page.content()
    assert house.panel.people[0].person_id not in page.content()
    context.close()


@pytest.mark.parametrize("width", [1280, 390])
def test_no_page_of_the_panels_shuts_anybody_out_or_is_wider_than_the_screen(
    house: House, address: str, browser: Any, width: int
) -> None:
    upheld, divided, _ = house.panel.open(shown_pair(), shown_pair(0.9, 0.2), shown_pair(0.7, 0.6))
    house.panel.judge(upheld, "fair", "unfair", "unfair", "unfair", "unfair")
    house.panel.judge(divided, "unfair", "unfair", "fair", "fair", "cannot_tell")
    dashboard = f"/console/fairness/{LOOP}"
    pages = {
        house.panel.keys[0]: ("/console/tour", "/console/review", "/console/judged", f"/console/judged/{upheld}"),
        house.keys["owner"]: (dashboard, f"{dashboard}/pairs", f"{dashboard}/pairs/{upheld}"),
        house.keys["adjudicator"]: ("/console/disputes",),
        house.keys["administrator"]: ("/console/panels",),
    }
    for key, paths in pages.items():
        context = browser.new_context(viewport={"width": width, "height": 900})
        page = context.new_page()
        sign_in(page, address, key)
        for path in paths:
            assert page.goto(address + path).status == 200, path
            for scheme in ("light", "dark"):
                page.emulate_media(color_scheme=scheme)
                assert barriers(page, width) == [], (path, scheme)
        context.close()


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
    revoke = page.get_by_role("button", name="Revoke the key of Grace")
    assert not revoke.is_visible()  # asks first
    page.locator("summary", has_text="Revoke the key of Grace").click()
    revoke.click()
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
    assert page.get_by_role("row").filter(has_text="70 points").first.is_visible()
    assert page.get_by_role("link", name="Review").count() == 0
    page.goto(f"{address}/console/fairness/other")
    page.get_by_text("another owner").wait_for()
