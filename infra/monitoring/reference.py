"""Writes the reference of the metrics, ``infra/docs/metrics.md``, from the catalogue: ``make monitoring``."""

from __future__ import annotations

from pathlib import Path

from serving.telemetry.catalogue import CATALOGUE, Group, Metric

PAGE = Path(__file__).resolve().parents[1] / "docs" / "metrics.md"
QUESTIONS: dict[Group, str] = {
    "answers": "Are requests answered?",
    "records": "Is every record safe?",
    "learning": "How do loops learn?",
}
_HEAD = """# Metrics

What `/metrics` shows, and what to make of it. This page is written by `make monitoring` from
[the catalogue](../../serving/telemetry/catalogue.py), as are the names and texts on `/metrics` and the descriptions on
the dashboards.

A loop's counters and those of refusals stand at 0 from the start, so that a rate sees the first of each. Counters and
histograms are of all workers of a replica, added up. Of a gauge the last column says how the values of several workers
become one. Labels are the loops, the operations of `/openapi.json`, statuses, and lists that are fixed: no path, no id,
nothing that callers send. A key that sees some loops is shown the series of these alone. What libraries count for
themselves, such as Feast, is not shown. What Prometheus makes of the metrics is in `infra/monitoring`; what to do about
an alert stands in [the runbook](runbook.md).
"""


def page() -> str:
    """Return the page."""
    parts = [_HEAD]
    for group, question in QUESTIONS.items():
        parts.append(f"\n## {question}\n")
        parts.append("\n| metric | kind | unit | what it is | what to make of it | of several workers |\n")
        parts.append("| --- | --- | --- | --- | --- | --- |\n")
        parts += [_row(metric) for metric in CATALOGUE if metric.group == group]
    return "".join(parts)


def _row(metric: Metric) -> str:
    labels = f"{{{','.join(metric.labels)}}}" if metric.labels else ""
    workers = {"": "the sum", "livesum": "the sum of those that run", "min": "the smallest", "max": "the largest"}
    cells = (
        f"`{metric.shown}{labels}`",
        metric.kind,
        metric.unit,
        metric.help,
        metric.action,
        workers.get(metric.mode, "the latest"),
    )
    return f"| {' | '.join(cells)} |\n"


if __name__ == "__main__":
    PAGE.write_text(page())
