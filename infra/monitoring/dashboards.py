"""Writes Grafana's dashboards, ``grafana/*.json``: ``make monitoring``.

Two, for two people. ``loops`` is for who answers for what is decided: alarms, decisions, outcomes, value, rollouts of
each loop. ``service`` is for who keeps it running: requests, disk and log, threads, replicas, scrapes. What a panel's
metrics are, and what to make of them, comes from the catalogue; its links lead to the sections of the runbook. The
library is typed, so a panel that Grafana would not read cannot be written.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from grafana_foundation_sdk.builders.common import VizLegendOptions
from grafana_foundation_sdk.builders.dashboard import (
    Dashboard,
    DashboardLink,
    DatasourceVariable,
    QueryVariable,
    Row,
    TextBoxVariable,
)
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.builders.timeseries import Panel
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import LegendDisplayMode, LegendPlacement
from grafana_foundation_sdk.models.dashboard import DashboardLinkType, DataSourceRef, VariableOption, VariableRefresh

from serving.telemetry.catalogue import CATALOGUE

FOLDER = Path(__file__).with_name("grafana")
RUNBOOK = "http://127.0.0.1:8000/runbook.html"
"""Where ``make docs`` and ``python -m http.server -d build/site`` show it; each dashboard has a field for another."""
OF_PROMETHEUS = {"scrape_duration_seconds", "scrape_samples_scraped", "up"}
"""Metrics that Prometheus makes of each scrape."""
SOURCE = DataSourceRef(type_val="prometheus", uid="$source")
TAG = "decision"


class Shown(NamedTuple):
    """A panel.

    Attributes:
        title: of it.
        unit: Grafana's name of it.
        queries: by their legend.
        alerts: whose sections of the runbook say what to do.
    """

    title: str
    unit: str
    queries: dict[str, str]
    alerts: tuple[str, ...]


class Board(NamedTuple):
    """A dashboard.

    Attributes:
        title: of it.
        description: whom it is for.
        by_loop: it lets one choose loops.
        rows: panels by row.
    """

    title: str
    description: str
    by_loop: bool
    rows: dict[str, list[Shown]]


LOOPS = Board(
    "Decision loops",
    "For who answers for what is decided: alarms, decisions, outcomes, value and rollouts of each loop.",
    True,
    {
        "Is something the matter?": [
            Shown(
                "Alarms of the last night",
                "short",
                {"{{loop}}: {{kind}}": 'max by (loop, kind) (decision_alarms{loop=~"$loop"}) > 0'},
                ("DecisionAlarm",),
            ),
            Shown(
                "Since the last night",
                "s",
                {"{{loop}}": 'time() - max by (loop) (decision_night_timestamp_seconds{loop=~"$loop"})'},
                ("DecisionNightOld", "DecisionNightFailed", "DecisionNightMissing"),
            ),
        ],
        "Decisions": [
            Shown(
                "Decisions by loop",
                "reqps",
                {"{{loop}}": 'sum by (loop) (rate(decision_decided_total{loop=~"$loop"}[5m]))'},
                ("DecisionDown", "DecisionServerErrors"),
            ),
            Shown(
                "Decided by the baseline because the policy failed",
                "reqps",
                {"{{loop}}": 'sum by (loop) (rate(decision_fallbacks_total{loop=~"$loop"}[5m]))'},
                ("DecisionFallbacks",),
            ),
        ],
        "Outcomes": [
            Shown(
                "Outcomes by loop",
                "cps",
                {"{{loop}}": 'sum by (loop) (rate(decision_outcomes_total{loop=~"$loop"}[5m]))'},
                ("DecisionOutcomesStopped",),
            ),
            Shown(
                "Outcomes in doubt",
                "cps",
                {
                    "{{loop}}: {{field}}": "sum by (loop, field) "
                    '(rate(decision_outcomes_doubtful_total{loop=~"$loop"}[5m]))'
                },
                ("DecisionOutcomesDoubtful",),
            ),
            Shown(
                "What became of the decisions",
                "short",
                {"{{loop}}: {{became}}": 'max by (loop, became) (decision_night_decisions{loop=~"$loop"})'},
                ("DecisionAlarm",),
            ),
            Shown(
                "Late and orphan outcomes",
                "short",
                {"{{loop}}: {{why}}": 'max by (loop, why) (decision_night_stray_outcomes{loop=~"$loop"})'},
                ("DecisionAlarm",),
            ),
        ],
        "Value and rollouts": [
            Shown(
                "Value by loop",
                "short",
                {"{{loop}}": 'max by (loop) (decision_night_value{loop=~"$loop"})'},
                ("DecisionAlarm",),
            ),
            Shown(
                "Decisions that met an outcome",
                "percentunit",
                {"{{loop}}": 'max by (loop) (decision_night_join_rate{loop=~"$loop"})'},
                ("DecisionAlarm", "DecisionOutcomesStopped"),
            ),
            Shown(
                "Share of the candidate",
                "percentunit",
                {"{{loop}}": 'max by (loop) (decision_guard_weight{loop=~"$loop"})'},
                ("DecisionGuardStale",),
            ),
            Shown(
                "How long a candidate's weight still holds",
                "s",
                {"{{loop}}": 'min by (loop) (decision_guard_left_seconds{loop=~"$loop"}) < Inf'},
                ("DecisionGuardStale",),
            ),
        ],
    },
)
SERVICE = Board(
    "Decision service",
    "For who keeps it running: requests, disk and log, threads, replicas, scrapes.",
    False,
    {
        "Requests": [
            Shown(
                "Requests by status",
                "reqps",
                {"{{status}}": "sum by (status) (rate(decision_request_seconds_count[5m]))"},
                ("DecisionServerErrors",),
            ),
            Shown(
                "Time of a decision",
                "s",
                {
                    f"{share:.1%}": f"histogram_quantile({share}, sum by (le) "
                    '(rate(decision_request_seconds_bucket{route="decide"}[5m])))'
                    for share in (0.5, 0.99, 0.999)
                },
                ("DecisionSlow",),
            ),
            Shown(
                "Refused, repeated",
                "reqps",
                {
                    "refused {{status}}": "sum by (status) (rate(decision_refused_total[5m]))",
                    "repeated": "sum(rate(decision_repeated_total[5m]))",
                },
                ("DecisionServerErrors",),
            ),
            Shown(
                "Answered without asking other replicas",
                "reqps",
                {"{{instance}}": "sum by (instance) (rate(decision_unpinned_total[5m]))"},
                ("DecisionUnpinned",),
            ),
        ],
        "Disk and log": [
            Shown(
                "Spool takes writes",
                "bool",
                {"{{instance}}": "min by (instance) (decision_spool_healthy)"},
                ("DecisionNotReady",),
            ),
            Shown(
                "The latest commit to the spool",
                "s",
                {"{{instance}}": "max by (instance) (decision_spool_fsync_seconds)"},
                ("DecisionSpoolSlow",),
            ),
            Shown(
                "Waiting for the disk, the log, the lake",
                "short",
                {
                    "{{instance}}: disk": "max by (instance) (decision_spool_depth)",
                    "{{instance}}: log": "max by (instance) (decision_forward_lag)",
                    "not in the lake": "max(decision_ingest_lag)",
                },
                ("DecisionForwardLag", "DecisionIngestLag"),
            ),
            Shown(
                "Disk left",
                "percentunit",
                {"{{instance}}": "min by (instance) (decision_disk_free_ratio)"},
                ("DecisionDiskFull",),
            ),
            Shown(
                "Disk used",
                "bytes",
                {"{{instance}} {{part}}": "max by (instance, part) (decision_disk_bytes)"},
                ("DecisionDiskFull",),
            ),
        ],
        "Replicas and their threads": [
            Shown("Replicas that answer Prometheus", "bool", {"{{instance}}": 'up{job="decision"}'}, ("DecisionDown",)),
            Shown(
                "Age of the oldest heartbeat",
                "s",
                {"{{instance}}": "max by (instance) (decision_heartbeat_age_seconds)"},
                ("DecisionNotReady",),
            ),
            Shown(
                "Failures of threads that keep something fresh",
                "short",
                {"{{thread}}": "sum by (thread) (increase(decision_thread_failures_total[15m]))"},
                ("DecisionThreadFails",),
            ),
            Shown(
                "Loops that do not run as configured",
                "short",
                {"{{instance}}": "max by (instance) (decision_loops_with_errors)"},
                ("DecisionLoopWrong",),
            ),
            Shown(
                "Policies swapped since the start",
                "short",
                {"{{instance}}": "max by (instance) (decision_model_reloads)"},
                ("DecisionLoopWrong", "DecisionThreadFails"),
            ),
        ],
        "Scrapes": [
            Shown(
                "Time of a scrape",
                "s",
                {
                    "{{instance}}": 'scrape_duration_seconds{job="decision"}',
                    "in the service, mean": 'sum(rate(decision_request_seconds_sum{route="readMetrics"}[5m]))'
                    ' / sum(rate(decision_request_seconds_count{route="readMetrics"}[5m]))',
                },
                ("DecisionDown",),
            ),
            Shown(
                "Series of a scrape",
                "short",
                {"{{instance}}": 'scrape_samples_scraped{job="decision"}'},
                ("DecisionDown",),
            ),
        ],
    },
)
BOARDS = {"loops": LOOPS, "service": SERVICE}
"""Dashboards by the name of their file."""


def named(query: str) -> set[str]:
    """Return the metrics that a query names, without the endings of a histogram."""
    plain = re.sub(r'"[^"]*"', "", query)
    words = set(re.findall(r"\b(?:decision|kube|scrape)_\w+|\bup\b", re.sub(r"\b(?:by|on) \([^)]*\)", "", plain)))
    return {re.sub(r"_(bucket|count|sum)$", "", word) for word in words}


def described(queries: dict[str, str]) -> str:
    """Return what the metrics of a panel are, and what to make of them."""
    asked = set().union(*map(named, queries.values()))
    if asked <= OF_PROMETHEUS:
        return (
            "Of Prometheus itself: 1 while it has an answer from a replica."
            if asked == {"up"}
            else "Of Prometheus itself. Both grow with loops, routes and statuses, and not with traffic."
        )
    return "\n\n".join(
        f"{metric.shown}: {metric.help}. {metric.action}" for metric in CATALOGUE if metric.shown in asked
    )


def dashboard(name: str) -> str:
    """Return one of `BOARDS` as JSON."""
    board = BOARDS[name]
    others = DashboardLink("The other one").type(DashboardLinkType.DASHBOARDS).tags([TAG])
    made = (
        Dashboard(board.title)
        .description(board.description)
        .uid(f"decision-{name}")
        .tags([TAG])
        .time("now-6h", "now")
        .refresh("30s")
        .timezone("browser")
        .link(others.keep_time(True))
        .with_variable(DatasourceVariable("source").type("prometheus").label("Prometheus"))
    )
    if board.by_loop:
        made = made.with_variable(
            QueryVariable("loop")
            .label("Loop")
            .datasource(SOURCE)
            .query("label_values(decision_decided_total, loop)")
            .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
            .include_all(True)
            .multi(True)
        )
    runbook = TextBoxVariable("runbook").label("Runbook").default_value(RUNBOOK)
    made = made.with_variable(runbook.current(VariableOption(text=RUNBOOK, value=RUNBOOK)))
    legend = VizLegendOptions().show_legend(True).display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM)
    for row, panels in board.rows.items():
        made = made.with_row(Row(row))
        for shown in panels:
            panel = Panel().title(shown.title).description(described(shown.queries)).unit(shown.unit)
            panel = panel.datasource(SOURCE).height(8).span(12).min(0).legend(legend)
            panel = panel.links([_section(alert) for alert in shown.alerts])
            for number, (legend_of, expr) in enumerate(shown.queries.items()):
                panel = panel.with_target(Dataquery().ref_id("ABCDEF"[number]).expr(expr).legend_format(legend_of))
            made = made.with_panel(panel)
    return JSONEncoder(sort_keys=True, indent=2).encode(made.build()) + "\n"


def _section(alert: str) -> DashboardLink:
    """Return a link to what the runbook says of an alert."""
    link = DashboardLink(f"Runbook: {alert}").type(DashboardLinkType.LINK)
    return link.url(f"${{runbook:raw}}#{alert.lower()}").target_blank(True)


if __name__ == "__main__":
    for name in BOARDS:
        (FOLDER / f"{name}.json").write_text(dashboard(name))
