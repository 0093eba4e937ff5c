"""Rules and dashboards: well-formed, raised by what they are for, and about metrics that a running service has."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from infra.monitoring import dashboards, reference
from infra.monitoring.dashboards import named
from pipelines.evaluation.standing import KINDS, Figures, raise_alarms
from pipelines.operations.waiting import wait_until
from serving.telemetry.catalogue import CATALOGUE
from tests.promtool import promtool
from tests.serving.http.test_app import Caller, open_at
from tests.soak.fuzz import table

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "infra/monitoring"
RULES = [rule for group in yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"] for rule in group["rules"]]
PANELS = [panel for board in dashboards.BOARDS.values() for row in board.rows.values() for panel in row]
QUERIES = [query for panel in PANELS for query in panel.queries.values()]
OTHERS = dashboards.OF_PROMETHEUS | {"kube_job_status_failed", "kube_cronjob_status_last_successful_time"}
"""Metrics of Prometheus itself, and of kube-state-metrics."""
FIGURES = Figures(at=1e9, value=0.5, decisions={"joined": 7, "dropped": 1}, strays={"late": 0, "orphan": None})
NO_METRICS = {"decision_client"}
"""What pages name in the same manner: a package."""


@pytest.fixture(scope="module")
def scrape(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What /metrics shows of a service that decided, repeated, took outcomes, refused and failed."""
    core = open_at(tmp_path_factory.mktemp("home"))
    call = Caller(core)
    raise_alarms(core.settings, "news", "night", [], FIGURES, now=datetime(2026, 3, 2, tzinfo=UTC))
    core.loops.refresh()
    body = {"event_id": "e1", "context": {}, "actions": [{"id": "a"}, {"id": "b"}]}
    for _ in range(2):
        assert call("POST", "/v1/loops/news/decide", body).status_code == 200
    assert call("POST", "/v1/loops/news/outcomes", {"event_id": "e1", "name": "odd", "value": 1.0}).status_code == 202
    assert call("POST", "/v1/loops/news/decide", {}).status_code == 422
    assert call("GET", "/nothing/e1").status_code == 404
    for late in ("decision_guard_left", "decision_disk_bytes"):
        wait_until(lambda name=late: name in call("GET", "/metrics").text, "the gauges that threads set")
    text = call("GET", "/metrics").text
    core.close()
    return text


@pytest.fixture(scope="module")
def families(scrape: str) -> dict[str, Any]:
    """The families of the scrape by the name to ask Prometheus for."""
    found = {
        f"{family.name}_total" if family.type == "counter" else family.name: family
        for family in text_string_to_metric_families(scrape)
        if family.name.startswith("decision_") and not family.name.endswith("_created")
    }
    return found


def test_a_service_shows_what_the_catalogue_has_and_nothing_else(families: dict[str, Any]) -> None:
    for metric in CATALOGUE:
        family = families[metric.shown]
        assert (family.type, family.documentation) == (metric.kind, metric.help)
        names = {name for sample in family.samples for name in sample.labels}
        assert names - {"le"} == set(metric.labels)
    assert families.keys() == {metric.shown for metric in CATALOGUE}


def test_every_counter_of_a_loop_stands_at_zero_before_anything_is_counted(tmp_path: Path) -> None:
    quiet = tmp_path / "loops" / "counted-by-nobody" / "loop.toml"  # counts are a process's: no other test asks it
    quiet.parent.mkdir(parents=True)
    quiet.touch()
    core = open_at(tmp_path)
    text = Caller(core)("GET", "/metrics").text
    core.close()
    counters = [metric for metric in CATALOGUE if metric.kind == "counter"]
    assert not [metric.name for metric in counters if f"\n{metric.shown}{{" not in text]
    for metric in counters:
        if metric.labels == ("loop",):
            assert f'{metric.shown}{{loop="counted-by-nobody"}} 0.0' in text
    for field in ("name", "value", "event_id"):
        assert f'decision_outcomes_doubtful_total{{field="{field}",loop="counted-by-nobody"}} 0.0' in text


def test_no_label_has_a_path_or_an_id(families: dict[str, Any], tmp_path: Path) -> None:
    labels = [sample.labels for family in families.values() for sample in family.samples]
    assert not [value for each in labels for value in each.values() if "/" in value or value == "e1"]
    routes = {each["route"] for each in labels if "route" in each}
    assert "decide" in routes
    # other tests of this process may have asked for any of them
    assert routes <= {route.name for route in table(tmp_path)} | {"none"}


def test_rules_and_dashboards_name_metrics_that_a_service_has(families: dict[str, Any]) -> None:
    asked = set().union(*(named(query) for query in [*(rule["expr"] for rule in RULES), *QUERIES]))
    assert asked - OTHERS <= families.keys()


def test_every_metric_that_a_service_has_is_on_a_dashboard_and_no_page_names_another(
    families: dict[str, Any],
) -> None:
    assert families.keys() <= set().union(*map(named, QUERIES))
    parts = r"_(?:bucket|count|sum)$"
    for page in (ROOT / "infra").rglob("*.md"):
        words = re.findall(r"`(decision_\w+?)[`{]", page.read_text())
        assert {re.sub(parts, "", word) for word in words} - NO_METRICS <= families.keys(), page
    assert set(re.findall(r"^\| `(decision_\w+)", reference.PAGE.read_text(), re.MULTILINE)) == families.keys()


def test_the_reference_is_the_one_that_the_catalogue_makes() -> None:
    assert reference.PAGE.read_text() == reference.page(), "make monitoring"
    shown = {metric.group for metric in CATALOGUE}
    assert shown == reference.QUESTIONS.keys()


def test_the_dashboards_are_those_that_the_code_makes() -> None:
    assert {path.stem for path in dashboards.FOLDER.iterdir()} == dashboards.BOARDS.keys()
    for name in dashboards.BOARDS:
        assert (dashboards.FOLDER / f"{name}.json").read_text() == dashboards.dashboard(name), "make monitoring"
        panels = json.loads(dashboards.dashboard(name))["panels"]
        assert all(panel["type"] == "row" or panel["description"] for panel in panels)
        assert len({(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}) == len(panels)


def test_every_panel_leads_to_the_runbook_and_every_alert_has_a_panel() -> None:
    sections = set(re.findall(r"^## (\w+)$", (ROOT / "infra/docs/runbook.md").read_text(), re.MULTILINE))
    assert all(panel.alerts for panel in PANELS)
    assert {alert for panel in PANELS for alert in panel.alerts} == {rule["alert"] for rule in RULES} == sections
    made = [json.loads(dashboards.dashboard(name)) for name in dashboards.BOARDS]
    ends = [link["url"] for board in made for panel in board["panels"] for link in panel.get("links") or []]
    assert sorted(ends) == sorted(f"${{runbook:raw}}#{alert.lower()}" for panel in PANELS for alert in panel.alerts)


def test_grafana_is_given_the_folder_of_the_dashboards() -> None:
    compose = yaml.safe_load((ROOT / "infra/compose/compose.yaml").read_text())
    given = [volume.split(":")[:2] for volume in compose["services"]["grafana"]["volumes"]]
    folders = {(ROOT / "infra/compose" / source).resolve(): there for source, there in given if source[0] == "."}
    read = yaml.safe_load((ROOT / "infra/compose/grafana/dashboards.yaml").read_text())["providers"][0]
    assert folders[dashboards.FOLDER] == read["options"]["path"]


def test_every_alert_is_raised_by_what_it_is_for_and_quiet_otherwise() -> None:
    checked = promtool("check", "rules", FOLDER / "alerts.yaml")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    raised = promtool("test", "rules", FOLDER / "alerts_test.yaml")
    assert raised.returncode == 0, raised.stdout + raised.stderr
    cases = [
        case
        for test in yaml.safe_load((FOLDER / "alerts_test.yaml").read_text())["tests"]
        for case in test["alert_rule_test"]
    ]
    for loud in (True, False):
        assert {case["alertname"] for case in cases if bool(case.get("exp_alerts")) is loud} == {
            rule["alert"] for rule in RULES
        }


def test_every_kind_of_alarm_raises_the_alert_and_is_quiet_without_it() -> None:
    tests = yaml.safe_load((FOLDER / "alerts_test.yaml").read_text())["tests"]
    cases = [case for test in tests for case in test["alert_rule_test"] if case["alertname"] == "DecisionAlarm"]
    raised = [alert["exp_labels"]["kind"] for case in cases for alert in case.get("exp_alerts", [])]
    assert sorted(raised) == sorted(KINDS)
    zero = [
        re.findall(r'kind="(\w+)"', series["series"])[0]
        for series in tests[0]["input_series"]
        if series["series"].startswith("decision_alarms")
    ]
    assert sorted(zero) == sorted(KINDS)


def test_every_query_of_the_dashboards_is_one(tmp_path: Path) -> None:
    rules = [{"record": f"panel:{number}", "expr": query} for number, query in enumerate(QUERIES)]
    for name, more in (("right", []), ("wrong", [{"record": "panel:wrong", "expr": "sum by (rate("}])):
        (tmp_path / name).write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": [*rules, *more]}]}))
    assert promtool("check", "rules", tmp_path / "right").returncode == 0
    assert promtool("check", "rules", tmp_path / "wrong").returncode == 1
