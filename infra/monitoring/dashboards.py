"""Writes Grafana's dashboard, ``decision.json``: ``make monitoring``.

One row for each question: are requests answered, is every record safe, how do loops learn, what do scrapes cost. What a
panel's metrics are, and what to make of them, comes from the catalogue. The library is typed, so a panel that Grafana
would not read cannot be written.
"""

from __future__ import annotations

import re
from pathlib import Path

from grafana_foundation_sdk.builders.common import VizLegendOptions
from grafana_foundation_sdk.builders.dashboard import Dashboard, DatasourceVariable, QueryVariable, Row
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.builders.timeseries import Panel
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import LegendDisplayMode, LegendPlacement
from grafana_foundation_sdk.models.dashboard import DataSourceRef, VariableRefresh

from serving.telemetry.catalogue import CATALOGUE

FILE = Path(__file__).with_name("decision.json")
SCRAPES = {"scrape_duration_seconds", "scrape_samples_scraped"}
"""Metrics that Prometheus makes of each scrape."""
SOURCE = DataSourceRef(type_val="prometheus", uid="$source")
ROWS: dict[str, list[tuple[str, str, dict[str, str]]]] = {
    "Answers": [
        ("Decisions by loop", "reqps", {"{{loop}}": 'sum by (loop) (rate(decision_decided_total{loop=~"$loop"}[5m]))'}),
        (
            "Requests by status",
            "reqps",
            {"{{status}}": "sum by (status) (rate(decision_request_seconds_count[5m]))"},
        ),
        (
            "Time of a decision",
            "s",
            {
                f"{share:.1%}": f"histogram_quantile({share}, sum by (le) "
                '(rate(decision_request_seconds_bucket{route="decide"}[5m])))'
                for share in (0.5, 0.99, 0.999)
            },
        ),
        (
            "Repeated, refused, unpinned, decided by the baseline because the policy failed",
            "reqps",
            {
                "repeated": 'sum(rate(decision_repeated_total{loop=~"$loop"}[5m]))',
                "refused {{status}}": "sum by (status) (rate(decision_refused_total[5m]))",
                "unpinned": 'sum(rate(decision_unpinned_total{loop=~"$loop"}[5m]))',
                "fallback": 'sum(rate(decision_fallbacks_total{loop=~"$loop"}[5m]))',
            },
        ),
    ],
    "Records": [
        ("Outcomes by loop", "cps", {"{{loop}}": 'sum by (loop) (rate(decision_outcomes_total{loop=~"$loop"}[5m]))'}),
        (
            "Outcomes in doubt",
            "cps",
            {"{{loop}}: {{field}}": 'sum by (loop, field) (rate(decision_outcomes_doubtful_total{loop=~"$loop"}[5m]))'},
        ),
        (
            "What became of the decisions",
            "short",
            {"{{loop}}: {{became}}": 'max by (loop, became) (decision_night_decisions{loop=~"$loop"})'},
        ),
        (
            "Late and orphan outcomes",
            "short",
            {"{{loop}}: {{why}}": 'max by (loop, why) (decision_night_stray_outcomes{loop=~"$loop"})'},
        ),
        (
            "Waiting for the disk, the log, the lake",
            "short",
            {
                "{{instance}}: disk": "max by (instance) (decision_spool_depth)",
                "{{instance}}: log": "max by (instance) (decision_forward_lag)",
                "not in the lake": "max(decision_ingest_lag)",
            },
        ),
        (
            "The latest commit to the spool",
            "s",
            {"{{instance}}": "max by (instance) (decision_spool_fsync_seconds)"},
        ),
        ("Disk left", "percentunit", {"{{instance}}": "min by (instance) (decision_disk_free_ratio)"}),
        ("Disk used", "bytes", {"{{instance}} {{part}}": "max by (instance, part) (decision_disk_bytes)"}),
        ("Spool takes writes", "bool", {"{{instance}}": "min by (instance) (decision_spool_healthy)"}),
    ],
    "Learning": [
        (
            "Alarms of the last night",
            "short",
            {"{{loop}}: {{kind}}": 'max by (loop, kind) (decision_alarms{loop=~"$loop"}) > 0'},
        ),
        ("Value by loop", "short", {"{{loop}}": 'max by (loop) (decision_night_value{loop=~"$loop"})'}),
        (
            "Decisions that met an outcome",
            "percentunit",
            {"{{loop}}": 'max by (loop) (decision_night_join_rate{loop=~"$loop"})'},
        ),
        (
            "Since the last night",
            "s",
            {"{{loop}}": 'time() - max by (loop) (decision_night_timestamp_seconds{loop=~"$loop"})'},
        ),
        (
            "Share of the candidate",
            "percentunit",
            {"{{loop}}": 'max by (loop) (decision_guard_weight{loop=~"$loop"})'},
        ),
        (
            "How long a candidate's weight still holds",
            "s",
            {"{{loop}}": 'min by (loop) (decision_guard_left_seconds{loop=~"$loop"}) < Inf'},
        ),
        ("Policies swapped since the start", "short", {"{{instance}}": "max by (instance) (decision_model_reloads)"}),
        (
            "Loops that do not run as configured",
            "short",
            {"{{instance}}": "max by (instance) (decision_loops_with_errors)"},
        ),
        (
            "Age of the oldest heartbeat",
            "s",
            {"{{instance}}": "max by (instance) (decision_heartbeat_age_seconds)"},
        ),
        (
            "Failures of threads that keep something fresh",
            "short",
            {"{{thread}}": "sum by (thread) (increase(decision_thread_failures_total[15m]))"},
        ),
    ],
    "Scrapes": [
        (
            "Time of a scrape",
            "s",
            {
                "{{instance}}": 'scrape_duration_seconds{job="decision"}',
                "in the service, mean": 'sum(rate(decision_request_seconds_sum{route="readMetrics"}[5m]))'
                ' / sum(rate(decision_request_seconds_count{route="readMetrics"}[5m]))',
            },
        ),
        ("Series of a scrape", "short", {"{{instance}}": 'scrape_samples_scraped{job="decision"}'}),
    ],
}
"""By row its panels: title, unit, and the queries by their legend."""


def named(query: str) -> set[str]:
    """Return the metrics that a query names, without the endings of a histogram."""
    plain = re.sub(r'"[^"]*"', "", query)
    words = set(re.findall(r"\b(?:decision|kube|scrape)_\w+|\bup\b", re.sub(r"\b(?:by|on) \([^)]*\)", "", plain)))
    return {re.sub(r"_(bucket|count|sum)$", "", word) for word in words}


def described(queries: dict[str, str]) -> str:
    """Return what the metrics of a panel are, and what to make of them."""
    asked = set().union(*map(named, queries.values()))
    if asked <= SCRAPES:
        return "Of Prometheus itself. Both grow with loops, routes and statuses, and not with traffic."
    return "\n\n".join(
        f"{metric.shown}: {metric.help}. {metric.action}" for metric in CATALOGUE if metric.shown in asked
    )


def dashboard() -> str:
    """Return the dashboard as JSON."""
    made = (
        Dashboard("Decision service")
        .uid("decision")
        .tags(["decision"])
        .time("now-6h", "now")
        .refresh("30s")
        .timezone("browser")
        .with_variable(DatasourceVariable("source").type("prometheus").label("Prometheus"))
        .with_variable(
            QueryVariable("loop")
            .label("Loop")
            .datasource(SOURCE)
            .query("label_values(decision_decided_total, loop)")
            .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
            .include_all(True)
            .multi(True)
        )
    )
    legend = VizLegendOptions().show_legend(True).display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM)
    for row, panels in ROWS.items():
        made = made.with_row(Row(row))
        for title, unit, queries in panels:
            panel = Panel().title(title).description(described(queries)).unit(unit).datasource(SOURCE)
            panel = panel.height(8).span(12).min(0).legend(legend)
            for number, (name, expr) in enumerate(queries.items()):
                panel = panel.with_target(Dataquery().ref_id("ABCDEF"[number]).expr(expr).legend_format(name))
            made = made.with_panel(panel)
    return JSONEncoder(sort_keys=True, indent=2).encode(made.build()) + "\n"


if __name__ == "__main__":
    FILE.write_text(dashboard())
