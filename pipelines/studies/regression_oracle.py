"""The study of regression oracles retrained on their own logs: how much is run, its tables and its figures."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any, TypeVar

import altair as alt
import numpy as np

from decision.errors import FieldError
from pipelines.reports.figures import HEIGHT, MUTED, SERIES, WIDTH, svg
from pipelines.studies import rules
from pipelines.studies.report import Figure, Findings, Sheet, number, with_interval
from simulators.studies import regression_oracle
from simulators.studies import rules as worlds
from simulators.studies.interval import of_mean
from simulators.studies.regression_oracle import Task, Trace, figures_of, gate_of

ABOUT = (
    "Card payments, 16 combinations of optional steps, a generation of decisions at a time, each served by a model "
    "trained on the logs of those before. Values are exact: 0 is uniform, 1 the best policy."
)
_KEYS = ("online", "last3", "drawdown", "sign_flips")
_COLOURS = {"plain": SERIES[1], "window_5_average_3": SERIES[3], "default": SERIES[0]}
MOST_PROCESSES = 2
WORLDS = tuple(worlds.WORLDS)

Progress = Callable[[str, float], None]
Run = TypeVar("Run", Task, worlds.Task)


def seeds(*, quick: bool) -> list[int]:
    """Return the seeds when none are asked for."""
    return [0, 1] if quick else list(range(8))


def run(
    asked: Sequence[int],
    length: int | None,
    *,
    quick: bool,
    progress: Progress,
    world: str | None = None,
    rate: float | None = None,
) -> Findings:
    """Run the study.

    Args:
        asked: seeds.
        length: decisions of each generation that are learned from; the study's own when None.
        quick: three methods instead of thirty.
        progress: called with what is done and the share.
        world: compare exploration rules in this one of `WORLDS` instead; None for the study itself.
        rate: of clicks or purchases there; None for the world's own.

    Raises:
        FieldError: `length` is too small, there is no such world, or it has no such rate.
    """
    size = (1_500 if quick else 8_000) if length is None else length
    if size < 200:
        raise FieldError("size", wanted="200 decisions or more", got=size)
    if world is not None:

        def compared(tasks: Sequence[worlds.Task], one: Callable[[worlds.Task], Trace]) -> dict[worlds.Task, Trace]:
            return traces(tasks, one, progress, lambda task: f"{task.world} {task.name}, seed {task.seed}")

        return rules.findings(world, rate, asked, size, quick=quick, traces=compared)
    if rate is not None:
        raise FieldError("rate", wanted="a world beside it", got=rate)
    tasks = regression_oracle.tasks(asked, size, quick=quick)
    result = summary(traces(tasks, regression_oracle.run, progress, _said), asked, size)
    return Findings("regression-oracle", ABOUT, result, list(sheets(result)), list(figures(result)))


def _said(task: Task) -> str:
    where = f"drift {task.drift:g}" if task.drift else "stationary"
    return f"{task.group} {task.name}, {where}, seed {task.seed}"


def traces(
    tasks: Sequence[Run], one: Callable[[Run], Trace], progress: Progress, said: Callable[[Run], str]
) -> dict[Run, Trace]:
    """Return what happened in every run of `one`, two at a time where there are two processors."""
    processes = min(MOST_PROCESSES, os.cpu_count() or 1, len(tasks))
    found: dict[Run, Trace] = {}
    # Fresh processes: a fork would copy the threads' locks of whatever was imported here.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        waiting = {pool.submit(one, task): task for task in tasks}
        for done in as_completed(waiting):
            task = waiting[done]
            found[task] = done.result()
            progress(said(task), len(found) / len(tasks))
    return {task: found[task] for task in tasks}


def summary(found: dict[Task, Trace], asked: Sequence[int], size: int) -> dict[str, Any]:
    """Return the study's JSON object."""
    result: dict[str, Any] = {"seeds": list(asked), "size": size, "stationary": {}, "drift": {}, "oracles": {}}
    for drift, key in ((False, "stationary"), (True, "drift")):
        names = dict.fromkeys(task.name for task in found if task.group == "methods")
        for name in names:
            runs = _of(found, "methods", name, drift)
            if runs:
                result[key][name] = _row(runs)
    result["oracles"]["logistic"] = _by_world(found, "methods", "default")
    for name in dict.fromkeys(task.name for task in found if task.group == "oracles"):
        result["oracles"][name] = _by_world(found, "oracles", name)
    for group in ("late_toggle", "delay"):
        names = dict.fromkeys(task.name for task in found if task.group == group)
        if names:
            result[group] = {name: _row(_of(found, group, name, False)) for name in names}
    result["gate"] = _gate(found)
    return result


def _by_world(found: dict[Task, Trace], group: str, name: str) -> dict[str, Any]:
    stationary, drifting = _of(found, group, name, False), _of(found, group, name, True)
    row = _row(stationary)
    return row | ({"drift": _row(drifting)} if drifting else {})


def _of(found: dict[Task, Trace], group: str, name: str, drift: bool) -> list[Trace]:
    return [t for task, t in found.items() if (task.group, task.name, task.drift > 0) == (group, name, drift)]


def _row(runs: Sequence[Trace]) -> dict[str, Any]:
    figures = [figures_of(trace) for trace in runs]
    row: dict[str, Any] = {}
    for key in (*_KEYS, "amplitude"):
        values = np.array([one[key] for one in figures])
        row[key], row[f"{key}_ci"] = float(values.mean()), of_mean(values.tolist())
    row["drawdown_largest"] = max(one["drawdown"] for one in figures)
    row["greedy"] = np.mean([trace.greedy for trace in runs], axis=0).tolist()
    row["positive"] = np.mean([trace.positive for trace in runs], axis=0).tolist()
    row["runs"] = len(runs)
    return row


def _gate(found: dict[Task, Trace]) -> dict[str, Any]:
    gated = {task: gate_of(trace) for task, trace in found.items() if task.group == "gate"}
    streams: dict[str, Any] = {}
    for name in dict.fromkeys(task.name for task in gated):
        for drift in (False, True):
            runs = [one for task, one in gated.items() if task.name == name and (task.drift > 0) == drift]
            if runs:
                streams[f"{name}, {'drift' if drift else 'stationary'}"] = _pooled(runs)
    return _pooled(list(gated.values())) | {"streams": streams}


def _pooled(runs: Sequence[dict[str, float]]) -> dict[str, Any]:
    improvements = sum(one["improvements"] for one in runs)
    taken = sum(one["promoted_within_two"] for one in runs)
    return {
        "bad_served_share": float(np.mean([one["bad_served"] for one in runs])),
        "promoted_within_two_share": taken / improvements if improvements else None,
        "runs": len(runs),
        "improvements": int(improvements),
        "bad_candidates": int(sum(one["bad_candidates"] for one in runs)),
        "promotions": int(sum(one["promotions"] for one in runs)),
    }


def sheets(result: dict[str, Any]) -> list[Sheet]:
    """Return the tables of a result."""
    columns = ["method", "online", "greedy, last 3", "drawdown", "largest", "sign flips", "runs"]
    out = [
        Sheet(f"{title}: generations of {result['size']:,}", columns, [_cells(n, r) for n, r in result[key].items()])
        for key, title in (("stationary", "stationary"), ("drift", "drift .3 per generation"))
    ]
    rows = [_cells(name, row) for name, row in result["oracles"].items()]
    rows += [_cells(f"{name}, drift", row["drift"]) for name, row in result["oracles"].items() if "drift" in row]
    out.append(Sheet("the default under other oracles", columns, rows))
    for key, title in (
        ("late_toggle", "a new toggle at generation 5"),
        ("delay", "outcomes late, immature rows left out"),
    ):
        if key in result:
            out.append(Sheet(title, columns, [_cells(name, row) for name, row in result[key].items()]))
    gate = [
        [
            name,
            number(row["bad_served_share"], 2),
            number(row["promoted_within_two_share"], 2),
            f"{row['improvements']}",
            f"{row['bad_candidates']}",
            f"{row['promotions']}",
            f"{row['runs']}",
        ]
        for name, row in [*result["gate"]["streams"].items(), ("all", result["gate"])]
    ]
    columns = [
        "candidates from",
        "runs that served .05 worse",
        "gains of .03 taken in two",
        "gains",
        "bad",
        "promoted",
        "runs",
    ]
    out.append(Sheet("the gate", columns, gate))
    return out


def _cells(name: str, row: dict[str, Any]) -> list[str]:
    largest = number(row["drawdown_largest"])
    return [
        name,
        *[with_interval(row, key) for key in _KEYS[:3]],
        largest,
        with_interval(row, "sign_flips", 2),
        f"{row['runs']}",
    ]


def figures(result: dict[str, Any]) -> list[Figure]:
    """Return the drawings of a result."""
    out: list[Figure] = []
    for key, title in (("stationary", "Nothing changes"), ("drift", "Effects drift by .3 per generation")):
        rows = {name: result[key][name] for name in _COLOURS if name in result[key]}
        out.append(
            Figure(f"greedy_{key}", _generations(rows, "greedy"), f"{title}: greedy value of each generation's model.")
        )
        if len(result[key]) > len(_COLOURS):
            out.append(
                Figure(f"methods_{key}", _methods(result[key]), f"{title}: value while learning, and at the end.")
            )
    plain = {name: result["stationary"][name] for name in _COLOURS if name in result["stationary"]}
    out.append(
        Figure("positive", _generations(plain, "positive", "approved"), "Approved payments in each generation's log.")
    )
    out.append(
        Figure(
            "oracles",
            _generations(result["oracles"], "greedy", colours=SERIES),
            "The default's rules under each oracle.",
        )
    )
    return out


def _generations(rows: dict[str, Any], key: str, title: str = "greedy value", colours: Any = None) -> str:
    points = [
        {"what": name.replace("_", " "), "generation": generation, "value": value}
        for name, row in rows.items()
        for generation, value in enumerate(row[key])
    ]
    names = [name.replace("_", " ") for name in rows]
    palette = list(colours or [_COLOURS[name] for name in rows])[: len(names)]
    chart = alt.Chart(alt.Data(values=points)).mark_line(strokeWidth=2, point=alt.OverlayMarkDef(size=50))
    chart = chart.encode(
        x=alt.X("generation:O", title="generation", axis=alt.Axis(labelAngle=0)),
        y=alt.Y("value:Q", title=title, scale=alt.Scale(zero=False)),
        color=alt.Color("what:N", sort=None, scale=alt.Scale(domain=names, range=palette)),
    )
    return svg(chart.properties(width=WIDTH, height=HEIGHT), f"{title} by generation")


def _methods(rows: dict[str, Any]) -> str:
    points = [
        {"what": name.replace("_", " "), "kind": kind, "value": row[key], "order": row["online"]}
        for name, row in rows.items()
        for kind, key in (("while learning", "online"), ("last three models", "last3"))
    ]
    order = [name.replace("_", " ") for name in sorted(rows, key=lambda name: -rows[name]["online"])]
    kinds = alt.Scale(domain=["while learning", "last three models"], range=[SERIES[0], SERIES[2]])
    source = alt.Chart(alt.Data(values=points)).encode(
        y=alt.Y("what:N", sort=order, title=None, axis=alt.Axis(labelLimit=0))
    )
    x = alt.X("value:Q", title="share of what the best policy gains over uniform")
    joined = source.mark_line(color=MUTED, opacity=0.5).encode(x=x, detail="what:N")
    dots = source.mark_point(filled=True, size=70, opacity=1).encode(x=x, color=alt.Color("kind:N", scale=kinds))
    return svg((joined + dots).properties(width=WIDTH - 160, height=20 * len(order)), "Methods by value")
