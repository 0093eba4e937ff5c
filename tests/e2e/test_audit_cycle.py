"""The panels' whole cycle on a running service: decisions over HTTP, a mined pair, five auditors, a fairer policy.

Everything is asked as its users ask: the application and four auditors over HTTP, the fifth in a browser, the engineer
on the command line.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from decision.artifact import unpack
from pipelines.fairness.standing import rescore, upheld
from pipelines.fairness.store import Governance
from pipelines.fairness.verify import verify
from pipelines.lake.lake import Lake
from pipelines.operations.processes import free_port, process, serve_command, wait_until_ready
from pipelines.operations.waiting import wait_until
from pipelines.registry.registry import Registry
from pipelines.settings import Settings, load_loop, load_settings
from tests.browser.console_server import chromium, sign_in_to_judge
from tests.worlds.credit import LOOP, TEXT, person
from tests.worlds.synthetic import new_settings

DECISIONS, WINDOW_S = 700, 6.0


class Site:
    """A home folder, its running service, and the shell beside it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.url = f"http://{settings.host}:{settings.port}"

    def ask(self, method: str, path: str, body: Any = None, key: str = "") -> Any:
        headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=300) as answer:
            return json.loads(answer.read() or b"null")

    def run(self, *arguments: str, status: int = 0) -> dict[str, Any]:
        command = [sys.executable, "-m", "pipelines.cli", *arguments, "--home", str(self.settings.root), "--json"]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        assert done.returncode == status, (arguments, done.stdout, done.stderr[-2_000:])
        return json.loads(done.stdout)

    def gaps(self, version: str) -> list[float]:
        lake, registry, loop = Lake(self.settings.lake_url), Registry(self.settings), load_loop(self.settings, LOOP)
        with Governance.at(self.settings) as store:
            return rescore(lake, loop, upheld(store, LOOP), unpack(registry.files(LOOP, version))[0]).gaps


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    new_settings(tmp_path)
    path = tmp_path / "loops" / LOOP / "loop.toml"
    path.parent.mkdir(parents=True)
    path.write_text(f"{TEXT}\n[reward]\nwindow_s = {WINDOW_S}\n")
    settings = load_settings({}, home=str(tmp_path), port=free_port(), reload_s=0.5)
    with process("service", serve_command(settings), settings, tmp_path / "service.log") as running:
        wait_until_ready(running, settings, tmp_path / "service.log")
        yield Site(settings)


def decide(site: Site, n: int) -> None:
    """Ask for `n` decisions as an application does, and report what came of each."""
    rng = np.random.default_rng(3)
    for start in range(0, n, 100):
        people = [person(rng) for _ in range(min(100, n - start))]
        asked = [
            {
                "event_id": f"c{start + i:05d}",
                "subject_id": f"customer-{start + i:05d}",
                "context": who.context(start + i),
                "actions": [{"id": "approve", "features": {"give": 1}}, {"id": "deny", "features": {"give": 0}}],
            }
            for i, who in enumerate(people)
        ]
        answers = site.ask("POST", f"/v1/loops/{LOOP}/decide/batch", {"decisions": asked})["decisions"]
        outcomes = [
            {
                "event_id": answer["event_id"],
                "value": float(rng.random() < who.pays()) if answer["action_id"] == "approve" else 0.5,
            }
            for who, answer in zip(people, answers, strict=True)
        ]
        site.ask("POST", f"/v1/loops/{LOOP}/outcomes", outcomes)


def judge_over_http(site: Site, key: str) -> None:
    while (task := site.ask("GET", "/fairness/tasks/next", key=key)) is not None:
        verdict = {"verdict": "unfair", "payload_hash": task["payload_hash"], "acceptable": 0.1}
        site.ask("POST", f"/fairness/tasks/{task['task_id']}/judgements", verdict, key=key)


def judge_in_browser(site: Site, key: str, left: int) -> None:
    with chromium() as browser:
        page = browser.new_context().new_page()
        sign_in_to_judge(page, site.url, key)
        for done in range(left):
            page.get_by_role("heading", name="Person A").wait_for()
            page.wait_for_load_state()  # the keys work once the whole page is there
            page.keyboard.press("1")
            page.keyboard.press("a")
            page.get_by_label("Largest difference").select_option("0.1")
            page.keyboard.press("Escape")
            page.keyboard.press("Enter")
            page.get_by_role("status").filter(has_text=f"{left - done - 1} left").wait_for()


def falsified(settings: Settings, folder: Path, change: Callable[[sqlite3.Connection], Any]) -> list[str]:
    """Return what verification says of a copy of the store after `change`, made past the triggers."""
    shutil.copytree(settings.root / "governance", folder / "governance")
    with sqlite3.connect(folder / "governance" / "governance.db") as connection:
        connection.execute("DROP TRIGGER audit_log_no_UPDATE")
        connection.execute("DROP TRIGGER audit_log_no_DELETE")
        change(connection)
    connection.close()
    with Governance.at(load_settings({}, home=str(folder))) as store:
        return [fault.what for fault in verify(store).faults]


@pytest.mark.connected
def test_from_decisions_to_a_fairer_policy_in_charge(site: Site, tmp_path: Path) -> None:
    decide(site, DECISIONS)
    site.run("ingest")
    time.sleep(WINDOW_S)  # a reward window is over when it is over
    site.run("join", LOOP)
    blind = site.run("train", LOOP)["version"]
    chief = site.run("audit", "people", "add", "Chief", "--role", "administrator")["key"]
    added = [{"name": f"Auditor {n}", "roles": ["auditor"]} for n in range(5)]
    keys = [site.ask("POST", "/fairness/people", person, key=chief)["key"] for person in added]
    mined = site.run("audit", "mine", LOOP, "--mined", "3", "--probe", "0")
    assert (mined["mined"], mined["policy_version"]) == (3, blind)
    assert site.run("audit", "assign", LOOP)["assigned"] == 3

    for key in keys[:4]:
        judge_over_http(site, key)
    judge_in_browser(site, keys[4], 3)
    assert site.run("audit", "status", LOOP)["tasks"] == {"upheld": 3}

    refused = site.run("promote", LOOP, "--version", blind, status=3)
    assert any("3 of 3 upheld pairs still violate" in reason for reason in refused["reasons"])

    fair = site.run("train", LOOP)["version"]
    before, after = site.gaps(blind), site.gaps(fair)
    assert min(before) > 0.3
    assert max(np.abs(after)) <= 0.1  # what the panel accepts
    promoted = site.run("promote", LOOP, "--version", fair)
    assert promoted["promoted"]
    assert promoted["numbers"]["fairness_violating"] == 0.0
    question = {
        "context": {"income": 0.1, "debt": 0.1, "group": "north"},
        "actions": [{"id": "approve"}, {"id": "deny"}],
    }

    def decides() -> str:
        return site.ask("POST", f"/v1/loops/{LOOP}/decide", question)["policy_version"]

    wait_until(lambda: decides() == fair, "the fairer version to decide")

    whole = site.run("audit", "verify")
    assert whole["ok"]
    last = whole["entries"]

    def swap(connection: sqlite3.Connection) -> None:
        for old, new in ((8, 10_000), (9, 8), (10_000, 9)):
            connection.execute("UPDATE audit_log SET seq = ? WHERE seq = ?", (new, old))

    changes: dict[str, Callable[[sqlite3.Connection], Any]] = {
        "edited": lambda c: c.execute(
            "UPDATE audit_log SET body = replace(body, 'unfair', 'fair') WHERE kind = 'judged'"
        ),
        "deleted": lambda c: c.execute("DELETE FROM audit_log WHERE seq = 9"),
        "does not follow": swap,
        "truncated": lambda c: c.execute("DELETE FROM audit_log WHERE seq = ?", (last,)),
    }
    for number, (word, change) in enumerate(changes.items()):
        folder = tmp_path / f"copy{number}"
        folder.mkdir()
        told = falsified(site.settings, folder, change)
        assert any(word in what for what in told), (word, told)
