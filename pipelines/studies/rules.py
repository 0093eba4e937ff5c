"""The study of exploration rules in worlds whose rewards differ: what is run, its table, what is tuned afterwards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pipelines.studies.report import Findings, Sheet, number, with_interval
from simulators.studies import rules
from simulators.studies.interval import of_mean
from simulators.studies.regression_oracle import Trace, figures_of
from simulators.studies.rules import Task

ABOUT = {
    "payments": "Card payments, 16 combinations of optional steps, most of them approved.",
    "clicks": "Ten offers to visitors, who rarely click.",
    "revenue": "Ten offers to visitors, who rarely buy, for very different amounts.",
}
_KEYS = ("online", "last3", "drawdown", "sign_flips")

Traces = Callable[[Sequence[Task], Callable[[Task], Trace]], dict[Task, Trace]]


def findings(
    world: str, rate: float | None, asked: Sequence[int], size: int, *, quick: bool, traces: Traces
) -> Findings:
    """Run the comparison.

    Args:
        world: ``payments``, ``clicks`` or ``revenue``.
        rate: of clicks or purchases; None for the world's own.
        asked: seeds.
        size: decisions of each generation that are learned from.
        quick: fewer numbers of each rule.
        traces: runs tasks and returns what happened.

    Raises:
        FieldError: there is no such world, or the rate is none of its.
    """
    tasks = rules.tasks(world, rate, asked, size, quick=quick)
    rules.world_of(tasks[0])  # bad arguments end before anything runs
    result = summary(traces(tasks, rules.run), world, rate, asked, size)
    about = f"{ABOUT[world]} Each generation is served by the model trained on the logs of those before."
    return Findings("regression-oracle", about, result, [sheet(result)], [])


def summary(
    found: dict[Task, Trace], world: str, rate: float | None, asked: Sequence[int], size: int
) -> dict[str, Any]:
    """Return the study's JSON object; a method that is tuned is its best number's row, with all of them beside it."""
    rows = {
        name: _row([trace for task, trace in found.items() if task.name == name])
        for name in dict.fromkeys(task.name for task in found)
    }
    for method, names in rules.TUNED.items():
        tried = [name for name in names if name in rows]
        best = max(tried, key=lambda name: rows[name]["online"])
        rows[method] = rows[best] | {"chosen": best}
    rate = rules.WORLDS[world] if rate is None else rate
    return {"world": world, "rate": rate, "seeds": list(asked), "size": size, "stationary": rows}


def _row(runs: Sequence[Trace]) -> dict[str, Any]:
    figures = [figures_of(trace) for trace in runs]
    row: dict[str, Any] = {}
    for key in _KEYS:
        values = [one[key] for one in figures]
        row[key], row[f"{key}_ci"] = float(np.mean(values)), of_mean(values)
    row["by_generation"] = np.mean([trace.online for trace in runs], axis=0).tolist()
    row["runs"] = len(runs)
    return row


def sheet(result: dict[str, Any]) -> Sheet:
    """Return the table of a result, the best while learning first."""
    rows = sorted(result["stationary"].items(), key=lambda entry: -entry[1]["online"])
    cells = [
        [name, *[with_interval(row, key) for key in _KEYS[:3]], number(row["sign_flips"], 2), f"{row['runs']}"]
        for name, row in rows
        if "chosen" not in row
    ]
    rate = "" if result["rate"] is None else f", rate {result['rate']:g}"
    title = f"{result['world']}{rate}: generations of {result['size']:,}"
    return Sheet(title, ["rule", "online", "greedy, last 3", "drawdown", "sign flips", "runs"], cells)
