"""The runbook has a section for each alert, the alert leads there, and what it tells to run runs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from pipelines.cli import app
from pipelines.operations.waiting import wait_until
from tests.serving.http.test_app import QUESTION, Caller, open_at

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "infra/docs/runbook.md"
GROUPS = yaml.safe_load((ROOT / "infra/monitoring/alerts.yaml").read_text())["groups"]
RULES = {rule["alert"]: rule for group in GROUPS for rule in group["rules"]}
SECTIONS = {title: text for title, _, text in (part.partition("\n") for part in PAGE.read_text().split("\n## ")[1:])}
COMMANDS = sorted({line for text in SECTIONS.values() for line in re.findall(r"^    (\S.*)$", text, re.MULTILINE)})


@pytest.fixture(scope="module")
def call(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Caller]:
    """A service that has decided and taken an outcome, with a guard."""
    core = open_at(tmp_path_factory.mktemp("home"), "[guard]\nenabled = true\n")
    call = Caller(core)
    assert call("POST", "/v1/loops/news/decide", QUESTION | {"event_id": "e1"}).status_code == 200
    assert call("POST", "/v1/loops/news/outcomes", {"event_id": "e1", "value": 1.0}).status_code == 202
    yield call
    core.close()


def test_every_alert_leads_to_its_section_and_every_section_is_an_alerts() -> None:
    assert SECTIONS.keys() == RULES.keys()
    for name, rule in RULES.items():
        assert rule["annotations"]["runbook"] == f"{PAGE.relative_to(ROOT)}#{name.lower()}"


def test_every_section_says_what_it_means_how_to_look_and_what_to_do() -> None:
    for name, text in SECTIONS.items():
        assert re.search(r"\*\*Means:\*\* .*\n\n    (curl|decision) .*\n\n\*\*Do:\*\* ", text, re.DOTALL), name


@pytest.mark.parametrize("command", COMMANDS)
def test_what_the_runbook_tells_to_run_runs(call: Caller, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words, _, sought = command.partition(" | grep ")
    if words.startswith("curl -s localhost:8080"):
        path = words.removeprefix("curl -s localhost:8080")
        assert call("GET", path).status_code == 200
        # gauges that threads set come in their own time
        wait_until(lambda: re.search(rf"^{sought}", call("GET", path).text, re.MULTILINE) is not None, sought)
        return
    monkeypatch.setenv("DECISION_HOME", call.core.settings.home)
    done = CliRunner().invoke(app, words.removeprefix("decision ").split())
    assert done.exit_code == 0, done.output
