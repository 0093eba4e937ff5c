"""The study of callers who lie: how much is run, its table and its figure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import altair as alt

from decision.errors import FieldError
from pipelines.reports.figures import HEIGHT, MUTED, SERIES, WIDTH, svg
from pipelines.studies.report import Figure, Findings, Sheet, number, with_interval
from simulators.studies import lies, redteam

ABOUT = (
    "Callers own one or three of six features of a bandit and write what raises the action they want. Shown are how "
    "often they get it, and what each defence costs honest callers."
)
SHIPPED = "cap_4"
QUICK_ROUNDS = 4
_ATTACKS = {"clean": "honest", "half": "moved by .5 sd", "two": "moved by 2 sd", "any": "any number"}

Progress = Callable[[str, float], None]


def seeds(*, quick: bool) -> list[int]:
    """Return the seeds when none are asked for."""
    return list(range(3 if quick else 8))


def run(asked: Sequence[int], length: int | None, *, quick: bool, progress: Progress) -> Findings:
    """Run the study.

    Args:
        asked: seeds.
        length: uniform rows that are learned from; the study's own when None.
        quick: fewer callers, and students that are taught a fifth.
        progress: called with what is running and the share done.

    Raises:
        FieldError: `length` is too small.
    """
    rows = redteam.ROWS if length is None else length
    if rows < 200:
        raise FieldError("size", wanted="200 rows or more", got=rows)
    found = redteam.run(asked, rows=rows, quick=quick, progress=_half(progress, 0.0))
    result = {
        "seeds": list(asked),
        "rows": rows,
        "cap": {owned: _shipped(table) for owned, table in found.items()},
        "lies": lies.run(
            asked,
            rounds=QUICK_ROUNDS if quick else lies.ROUNDS,
            users=lies.USERS // 3 if quick else lies.USERS,
            progress=_half(progress, 0.5),
        ),
    }
    return Findings("redteam", ABOUT, result, list(sheets(result)), list(figures(result)))


def _half(progress: Progress, done: float) -> Progress:
    return lambda what, share: progress(what, done + share / 2.0)


def _shipped(table: dict[str, Any]) -> dict[str, Any]:
    """Return the numbers of the cap that ships, and beside them those of all policies."""
    row = table[SHIPPED]
    of = {"target_clean": "clean", "target_attacked": "two", "value": "value", "lost": "lost"}
    numbers = {name: row[key] for name, key in of.items()} | {
        f"{name}_ci": row[f"{key}_ci"] for name, key in of.items()
    }
    return numbers | {"policies": table}


def sheets(result: dict[str, Any]) -> list[Sheet]:
    """Return the tables of a result."""
    out: list[Sheet] = []
    for owned, found in result["cap"].items():
        cells = [
            [policy.replace("_", " "), number(row["value"]), with_interval(row, "lost")]
            + [with_interval(row, key) for key in _ATTACKS]
            for policy, row in found["policies"].items()
        ]
        columns = ["policy", "value", "lost", *_ATTACKS.values()]
        title = f"{owned[1:]} of 6 features written by the caller: {len(result['seeds'])} seeds"
        out.append(Sheet(title, columns, cells, "Mean probability of the action that the caller wants."))
    cells = [
        [defence, with_interval(row, "clean", 0), with_interval(row, "share_moved"), with_interval(row, "return_lost")]
        for defence, row in result["lies"].items()
    ]
    columns = ["taught with lies", "return, honest", "share moved", "return lost"]
    title = f"Users report {math.exp(lies.ATTACK):.1f} times what they got: {len(result['seeds'])} seeds"
    out.append(Sheet(title, columns, cells, "Of the decisions for all users of long-term satisfaction, group 14."))
    return out


def figures(result: dict[str, Any]) -> list[Figure]:
    """Return the drawings of a result."""
    points = [
        {"what": policy.replace("_", " "), "owned": f"{owned[1:]} features", "lost": row["lost"], "got": row["two"]}
        for owned, found in result["cap"].items()
        for policy, row in found["policies"].items()
    ]
    names = list(dict.fromkeys(point["what"] for point in points))
    x = alt.X("lost:Q", title="value lost to honest callers", axis=alt.Axis(format="%"))
    y = alt.Y("got:Q", title="the wanted action, features moved by 2 sd", axis=alt.Axis(format="%"))
    colours = alt.Scale(domain=names, range=[*SERIES, MUTED][: len(names)])
    dots = alt.Chart(alt.Data(values=points)).mark_point(filled=True, size=80)
    dots = dots.encode(x=x, y=y, color=alt.Color("what:N", scale=colours), shape=alt.Shape("owned:N"))
    drawn = svg(dots.properties(width=WIDTH, height=HEIGHT), "What callers get against what a defence costs")
    return [Figure("redteam", drawn, "What callers get of the action they want, against what each defence costs.")]
