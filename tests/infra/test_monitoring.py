"""Rules and dashboards: well-formed, raised by what they are for, and about metrics that a running service has."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from infra.monitoring import dashboards
from pipelines.operations.waiting import wait_until
from serving import metrics
from tests.promtool import promtool
from tests.serving.http.test_app import Caller, open_at

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "infra/monitoring"
RULES = [rule for group in yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"] for rule in group["rules"]]
QUERIES = [query for panels in dashboards.ROWS.values() for _, _, queries in panels for query in queries.values()]
OTHERS = {"up", "kube_job_status_failed", "kube_cronjob_status_last_successful_time"}
"""Metrics of Prometheus itself, and of kube-state-metrics."""


def named(query: str) -> set[str]:
    """Return the metrics that a query names, less the suffixes of a histogram."""
    plain = re.sub(r'"[^"]*"', "", query)
    words = set(re.findall(r"\b(?:decision|kube)_\w+|\bup\b", re.sub(r"\b(?:by|on) \([^)]*\)", "", plain)))
    return {re.sub(r"_(bucket|count|sum)$", "", word) for word in words}


@pytest.fixture(scope="module")
def exposed(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The names on /metrics of a service that decided, repeated, took outcomes, refused and failed."""
    core = open_at(tmp_path_factory.mktemp("home"))
    call = Caller(core)
    body = {"event_id": "e1", "context": {}, "actions": [{"id": "a"}, {"id": "b"}]}
    for _ in range(2):
        assert call("POST", "/v1/loops/news/decide", body).status_code == 200
    assert call("POST", "/v1/loops/news/outcomes", {"event_id": "e1", "name": "odd", "value": 1.0}).status_code == 202
    assert call("POST", "/v1/loops/news/decide", {}).status_code == 422
    metrics.count("fallbacks", "news", 0)  # only a policy that fails makes one
    metrics.count("unpinned", "news", 0)  # and only a Redis that does not answer
    metrics.thread_failures("models", 0)
    for late in ("decision_guard_left", "decision_disk_bytes"):
        wait_until(lambda name=late: name in call("GET", "/metrics").text, "the gauges that threads set")
    text = call("GET", "/metrics").text
    core.close()
    names = re.findall(r"^# TYPE (decision_\w+) ", text, re.MULTILINE)
    return {name for name in names if not name.endswith("_created")}


def test_every_metric_of_rules_and_dashboards_is_one_that_a_service_has(exposed: set[str]) -> None:
    asked = set().union(*(named(query) for query in [*(rule["expr"] for rule in RULES), *QUERIES]))
    assert asked - OTHERS <= exposed


def test_every_metric_that_a_service_has_is_documented_and_on_the_dashboard(exposed: set[str]) -> None:
    documented = re.findall(r"`(decision_\w+)", (ROOT / "infra/docs/operating.md").read_text())
    assert exposed <= set(documented)
    assert exposed <= set().union(*map(named, QUERIES))


def test_the_dashboard_is_the_one_that_the_code_makes() -> None:
    assert dashboards.FILE.read_text() == dashboards.dashboard(), "python -m infra.monitoring.dashboards"
    panels = json.loads(dashboards.dashboard())["panels"]
    assert len({(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}) == len(panels)


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


def test_every_query_of_the_dashboard_is_one(tmp_path: Path) -> None:
    rules = [{"record": f"panel:{number}", "expr": query} for number, query in enumerate(QUERIES)]
    for name, more in (("right", []), ("wrong", [{"record": "panel:wrong", "expr": "sum by (rate("}])):
        (tmp_path / name).write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": [*rules, *more]}]}))
    assert promtool("check", "rules", tmp_path / "right").returncode == 0
    assert promtool("check", "rules", tmp_path / "wrong").returncode == 1
