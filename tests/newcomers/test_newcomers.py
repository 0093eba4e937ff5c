"""Five newcomers do their jobs end to end, with the lines that their pages of the documentation have.

The developer asks a first decision, the engineer of the night runs one, the analyst replays its log, the auditor judges
and appeals, the operator stops a rollout. Commands are typed into a terminal, pages are used in a browser.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pexpect
import pytest

from pipelines.fairness.people import add_person
from pipelines.fairness.store import Governance
from pipelines.fairness.tasks import Judgement, judge, queue
from pipelines.guard.store import GuardStore
from pipelines.operations.processes import free_port
from pipelines.operations.waiting import wait_until
from pipelines.settings import Settings, load_settings
from pipelines.training.train import train
from serving.core import Core
from serving.http.app import App
from serving.start import open_core
from tests.browser.console_server import chromium, serving, sign_in, sign_in_to_judge
from tests.newcomers.terminal import Terminal, file_of, typed
from tests.worlds.credit import TEXT, Credit
from tests.worlds.operated import Operated
from tests.worlds.panels import NOW
from tests.worlds.press import ask
from tests.worlds.synthetic import new_settings

pytestmark = pytest.mark.connected


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as made:
        yield made


@pytest.fixture(scope="module")
def news(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """An installation whose application asked for decisions today, and whose night is still to come."""
    settings = new_settings(tmp_path_factory.mktemp("news"))
    path = settings.loop_path("news")
    path.parent.mkdir(parents=True)
    path.write_text("[reward]\nwindow_s = 0.1\n")
    ask(settings, np.random.default_rng(5))
    return settings


@pytest.fixture(scope="module")
def night(news: Settings) -> str:
    """What the first night said; its line is the engineer's."""
    return Terminal(news.root, news.root).run(typed("decision nightly news -v", "infra/docs/operating.md"))


def test_the_engineer_of_the_night_runs_one_and_reads_its_report(news: Settings, night: str) -> None:
    assert re.search(r"joined loop=news joined=\d+ ", night)
    (report,) = (news.root / "reports/nights/news").glob("*.txt")
    assert "version 1" in report.read_text().casefold()
    line = typed("decision nightly news -v --log-format json", "infra/docs/operating.md")
    said = Terminal(news.root, news.root).run(f"({line}) 2>&1 >/dev/null | grep '^{{'")
    events = [json.loads(entry) for entry in said.splitlines()]
    assert {"joined", "promoted"} & {entry["event"] for entry in events}
    assert all(entry["loop"] == "news" for entry in events if entry["event"] == "joined")


def test_an_analyst_tries_a_policy_of_their_own_on_the_log(news: Settings, night: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(file_of("# mine.py", "infra/docs/evaluation.md"))
    terminal, page = Terminal(tmp_path, news.root), "infra/docs/evaluation.md"
    checked = terminal.run(typed("decision policy check mine:policy --loop news", page))
    assert "video" in checked
    found = json.loads(terminal.run(typed("decision replay news --policy mine:policy", page) + " --json 2>/dev/null"))
    assert (
        0.05 < found["lift"]["low"] < 0.2 < found["lift"]["high"]
    )  # it earns .6 where the log earned .4; all is seeded
    champion = typed("decision replay news --policy champion --html report.html", page)
    assert "lift" in terminal.run(champion).casefold()
    assert "http://" not in (tmp_path / "report.html").read_text().replace("http://www.w3.org/", "")


def test_an_auditor_begins_with_the_tour_judges_and_appeals(tmp_path: Path, browser: Any) -> None:
    page_of = "infra/docs/fairness.md"
    new_settings(tmp_path)
    terminal = Terminal(tmp_path, tmp_path)
    terminal.run(typed("decision init credit", page_of))
    credit = Credit.at(tmp_path, TEXT)  # what the page says to change in loop.toml, and more
    credit.play(300)
    train(credit.lake, credit.registry, credit.loop, seed=1, now=NOW)
    said = terminal.run(typed('decision audit people add "Ada L." --role auditor', page_of))
    key = re.search(r"dsk_[\w-]{43}", said)
    assert key, said
    with Governance.at(credit.settings) as store:
        others = [add_person(store, name=name, roles=["auditor"], now=NOW, by="test")[0] for name in ("B", "C")]
    assert "20 mined, " in terminal.run(typed("decision audit mine credit", page_of))
    assert "wait for auditors" in terminal.run(typed("decision audit assign credit", page_of))
    core = open_core(credit.settings)
    with Governance.at(credit.settings) as store:
        now = _now(core)
        for person in others:
            for task in queue(store, person, now=now):
                vote = Judgement(verdict="unfair", payload_hash=task["payload_hash"], acceptable=0.0)
                judge(store, person, task["task_id"], vote, now=now)
    app = App(lambda: core)
    with serving(app) as address:
        context = browser.new_context(java_script_enabled=False)
        page = context.new_page()
        sign_in_to_judge(page, address, key.group())
        name = page.get_by_role("heading", level=1).inner_text()
        page.get_by_label("Fair: how they differ").check()
        page.get_by_role("button", name="Save judgement").click()
        page.get_by_role("status").filter(has_text=f"Your judgement of {name} is saved.").wait_for()
        page.get_by_role("link", name="What I judged").click()
        page.get_by_text("The panel upheld it: 2 of 3 found it unfair, 2 were needed.").wait_for()
        page.get_by_role("link", name=name).click()
        page.get_by_label("Why is the verdict wrong?").fill("They differ in what they owe.")
        page.get_by_role("button", name="Appeal the verdict").click()
        page.get_by_text("You appealed: “They differ in what they owe.”").wait_for()
        context.close()
    app.close()
    status = terminal.run(typed("decision audit status credit", page_of))
    assert re.search(r"pairs disputed +\S? *1\b", status), status
    assert "whole" in terminal.run(typed("decision audit verify", page_of))


def _now(core: Core) -> datetime:
    return datetime.fromtimestamp(core.clock(), UTC)


def test_an_operator_makes_a_key_watches_and_stops_a_rollout(tmp_path: Path, browser: Any) -> None:
    site = Operated(tmp_path)
    terminal = Terminal(tmp_path, tmp_path, TERM="xterm")  # the live view is for terminals that can move the cursor
    said = terminal.run(typed("decision keys create", "infra/docs/console.md"))
    key = re.search(r"dk_\S+", said)
    assert key, said
    watching = terminal.start("decision top")  # live: it goes on until somebody ends it
    watching.expect("shop")
    watching.sendintr()
    watching.expect(pexpect.EOF)
    watching.close()
    assert watching.exitstatus == 0
    with serving(site.call.app) as address:
        wait_until(
            lambda: httpx.get(f"{address}/v1/loops", timeout=300).status_code == 401, "the service to know of the key"
        )
        context = browser.new_context()
        page = context.new_page()
        sign_in(page, address, key.group())
        page.get_by_role("link", name="shop").click()
        page.get_by_role("link", name="Stop the rollout").click()
        page.get_by_role("button", name="Stop the rollout").click()
        page.get_by_role("status").filter(has_text="The rollout is stopped").wait_for()
        context.close()
    store = GuardStore(site.settings, "shop")
    assert [move.kind for move in store.moves()][-1] == "stopped"
    store.close()
    site.close()


def test_a_developer_asks_for_a_first_decision(tmp_path: Path) -> None:
    pages = ("README.md", "infra/docs/*.md")
    port = free_port()
    settings = load_settings({}, home=str(tmp_path / ".decision"), port=port)
    terminal = Terminal(tmp_path, settings.root, DECISION_PORT=str(port), DECISION_BENTO_PORT=str(free_port()))
    terminal.run(typed("decision init news", *pages))
    assert settings.loop_path("news").is_file()
    service = terminal.start(typed("decision serve", *pages))
    try:
        wait_until(lambda: _is_ready(port), "the service", still_s=300.0)
        asked = typed("curl -s localhost:8080/v1/loops/news/decide", *pages)
        answer = json.loads(terminal.run(asked.replace(":8080", f":{port}")))
        assert answer["action_id"] in ("a", "b")
        assert answer["propensity"] == 0.5
    finally:
        service.sendintr()
        service.expect(pexpect.EOF)
        service.close()
    terminal.run(typed("decision nightly news", *pages))  # nothing is learned from one decision, and that is no error


def _is_ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=5.0).status_code == 200
    except httpx.HTTPError:
        return False
