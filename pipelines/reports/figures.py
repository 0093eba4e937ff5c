"""Figures of the reports as SVG text that follows the page's light or dark colours and needs nothing from a network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import altair as alt
import vl_convert

# The colours of the palette are exchanged for variables of the page once the figure is drawn.
INK, MUTED = "#1c1f26", "#8a93a3"
SERIES = ("#2b6cb0", "#c05621", "#2f855a", "#805ad5", "#b83280", "#b7791f", "#2c7a7b", "#718096")
_VARIABLES = {INK: "var(--ink)", MUTED: "var(--muted)"} | {
    colour: f"var(--s{number})" for number, colour in enumerate(SERIES, 1)
}
WIDTH, HEIGHT = 520, 240

Rows = list[dict[str, Any]]


def svg(chart: Any, description: str) -> str:
    """Return `chart` as SVG text, with `description` for those who cannot see it."""
    styled = chart.configure(
        background="transparent",
        font="system-ui, sans-serif",
        view=alt.ViewConfig(stroke=None),
        axis=alt.AxisConfig(
            labelColor=MUTED,
            titleColor=INK,
            titleFontWeight="normal",
            gridColor=MUTED,
            gridOpacity=0.18,
            domain=False,
            ticks=False,
            labelPadding=6,
            titlePadding=12,  # pages' fonts may be wider than the one that labels were measured with
            labelFontSize=12,
            titleFontSize=12,
        ),
        legend=alt.LegendConfig(
            labelColor=INK, titleColor=INK, orient="top", labelFontSize=12, labelLimit=0, title=None
        ),
    )
    text = vl_convert.vegalite_to_svg(styled.to_json())
    for colour, variable in _VARIABLES.items():
        text = text.replace(f'"{colour}"', f'"{variable}"')
    return text.replace("<svg ", f'<svg role="img" aria-label="{description}" ', 1)


def learning(generations: Rows, *, uniform: float, optimum: float) -> str:
    """Return the learning curve.

    Args:
        generations: ``version``, ``value``, ``low``, ``high`` (estimate on the holdout), ``true_value`` and
            ``greedy_accuracy`` of each, in order.
        uniform: value of choosing at random.
        optimum: value of the best policy.
    """
    x = alt.X("version:O", title="version", sort=None, axis=alt.Axis(labelAngle=0))
    y = alt.Y("value:Q", title="reward per decision", scale=alt.Scale(domain=[0, 1.02]))
    names = ["greedy accuracy, held-out digits", "true value, held-out digits", "estimate from the log, 95% interval"]
    colours = alt.Scale(domain=names, range=list(SERIES[:3]))
    color = alt.Color("what:N", scale=colours, legend=alt.Legend(columns=1))
    kinds = ("greedy_accuracy", "true_value", "value")
    lines = [
        {"version": row["version"], "what": name, "value": row[key]}
        for name, key in zip(names, kinds, strict=True)
        for row in generations
    ]
    curves = alt.Chart(alt.Data(values=lines)).encode(x=x, y=y, color=color)
    exact = curves.transform_filter(alt.datum.what != names[2]).mark_line(point=alt.OverlayMarkDef(size=50))
    estimate = curves.transform_filter(alt.datum.what == names[2]).mark_point(filled=True, size=60, opacity=1)
    ends = [{"version": row["version"], "low": row["low"], "high": row["high"]} for row in generations]
    bars = alt.Chart(alt.Data(values=ends)).mark_rule(strokeWidth=2, color=SERIES[2])
    bars = bars.encode(x=x, y=alt.Y("low:Q"), y2="high:Q")
    marks = [{"at": uniform, "what": "uniform"}, {"at": optimum, "what": "oracle"}]
    rules = alt.Chart(alt.Data(values=marks)).mark_rule(strokeDash=[4, 4], color=MUTED).encode(y="at:Q")
    labels = alt.Chart(alt.Data(values=marks)).mark_text(align="left", dx=4, dy=-6, color=MUTED)
    labels = labels.encode(y="at:Q", x=alt.value(0), text="what:N")
    return svg(
        (rules + labels + bars + exact + estimate).properties(width=WIDTH, height=HEIGHT),
        "Value and greedy accuracy by generation",
    )


def served_versions(rows: Rows, switches: Rows) -> str:
    """Return which version answered when.

    Args:
        rows: ``second``, ``end``, ``version``, and ``low`` and ``high``, the answers before and with this version's.
        switches: ``second`` of each version's first answer.
    """
    names = list(dict.fromkeys(row["version"] for row in rows))
    scale = alt.Scale(domain=names, range=[SERIES[index % len(SERIES)] for index in range(len(names))])
    bars = alt.Chart(alt.Data(values=rows)).mark_rect()
    bars = bars.encode(
        x=alt.X("second:Q", title="seconds since the application started", scale=alt.Scale(nice=False)),
        x2="end:Q",
        y=alt.Y("low:Q", title="answers per second"),
        y2="high:Q",
        color=alt.Color("version:N", scale=scale, legend=alt.Legend(symbolType="square", columnPadding=18)),
    )
    rules = alt.Chart(alt.Data(values=switches)).mark_rule(color=INK, strokeDash=[2, 3]).encode(x="second:Q")
    return svg((bars + rules).properties(width=WIDTH, height=HEIGHT), "Answers per second by policy version")


def regret(rows: Rows) -> str:
    """Return cumulative regret curves; `rows` have ``decision``, ``what`` and ``regret``."""
    names = list(dict.fromkeys(row["what"] for row in rows))
    color = alt.Color("what:N", scale=alt.Scale(domain=names, range=[SERIES[0], MUTED, SERIES[2]]))
    chart = alt.Chart(alt.Data(values=rows)).mark_line(strokeWidth=2)
    chart = chart.encode(
        x=alt.X("decision:Q", title="decisions", scale=alt.Scale(nice=False), axis=alt.Axis(tickCount=6)),
        y=alt.Y("regret:Q", title="reward missed so far"),
        color=color,
    )
    return svg(chart.properties(width=WIDTH, height=HEIGHT), "Cumulative regret by decision")


def weights(histogram: Sequence[tuple[float, float, int]]) -> str:
    """Return the histogram of importance weights, both axes logarithmic: the few heavy ones matter most.

    Args:
        histogram: (lower edge, upper edge, rows) of each bin, edges above 0; bins without rows are left out.
    """
    # Bars begin below 1 row, which would have no height otherwise.
    rows = [{"low": low, "high": high, "rows": count, "none": 0.5} for low, high, count in histogram if count]
    ends = [min(1.0, *(row["low"] for row in rows)), max(1.0, *(row["high"] for row in rows))]
    most = max(row["rows"] for row in rows)
    counts = [10**power for power in range(len(str(most)) + 1)]
    chart = alt.Chart(alt.Data(values=rows)).mark_rect(color=SERIES[0])
    chart = chart.encode(
        x=alt.X(
            "low:Q",
            title="importance weight",
            scale=alt.Scale(type="log", domain=ends, nice=False, padding=6),
            axis=alt.Axis(format="~g", values=_steps(*ends), labelOverlap=True),
        ),
        x2="high:Q",
        y=alt.Y(
            "none:Q",
            title="decisions",
            scale=alt.Scale(type="log", domain=[0.5, 1.5 * most], nice=False),
            axis=alt.Axis(format=",.0f", values=counts),
        ),
        y2="rows:Q",
    )
    one = alt.Chart(alt.Data(values=[{"low": 1.0}])).mark_rule(color=INK, strokeDash=[2, 3]).encode(x="low:Q")
    return svg((chart + one).properties(width=WIDTH, height=HEIGHT), "Distribution of importance weights")


def _steps(low: float, high: float) -> list[float]:
    """Return ticks of a logarithmic axis: powers of ten, and 2 and 5 times these where the axis is short."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [digit * 10.0**power for power in decades for digit in ((1, 2, 5) if len(decades) <= 4 else (1,))]


def calibration(rows: Rows) -> str:
    """Return logged probabilities against observed frequencies.

    Args:
        rows: ``probability``, ``frequency``, ``low``, ``high`` of each bin, all above 0.
    """
    ends = [min(row["probability"] for row in rows), max(row["probability"] for row in rows)]
    scale = alt.Scale(type="log", nice=False, padding=12)
    x = alt.X("probability:Q", title="logged probability", scale=scale, axis=_log_axis())
    y = alt.Y("frequency:Q", title="how often it was drawn", scale=scale, axis=_log_axis())
    line = [{"probability": end, "frequency": end} for end in ends]
    ideal = alt.Chart(alt.Data(values=line)).mark_line(color=MUTED, strokeDash=[4, 4]).encode(x=x, y=y)
    source = alt.Chart(alt.Data(values=rows)).encode(x=x)
    bars = source.mark_rule(color=SERIES[0], strokeWidth=2).encode(y=alt.Y("low:Q", scale=scale), y2="high:Q")
    points = source.mark_point(filled=True, size=60, opacity=1, color=SERIES[0]).encode(y=y)
    return svg((ideal + bars + points).properties(width=WIDTH, height=HEIGHT), "Propensities against frequencies")


def _log_axis() -> alt.Axis:
    return alt.Axis(format="~g", values=[10.0**power for power in range(-8, 9)])


def estimates(rows: Rows, *, logged: float) -> str:
    """Return estimates with their intervals.

    Args:
        rows: ``name``, ``value``, ``low``, ``high``.
        logged: mean logged reward.
    """
    source = alt.Chart(alt.Data(values=rows)).encode(y=alt.Y("name:N", title=None, sort=None))
    x = alt.X("low:Q", title="reward per decision", scale=alt.Scale(zero=False))
    bars = source.mark_rule(color=SERIES[0], strokeWidth=2).encode(x=x, x2="high:Q")
    points = source.mark_point(filled=True, size=70, opacity=1, color=SERIES[0]).encode(x="value:Q")
    rule = alt.Chart(alt.Data(values=[{"low": logged}])).mark_rule(color=INK, strokeDash=[2, 3]).encode(x="low:Q")
    return svg((rule + bars + points).properties(width=WIDTH, height=40 * len(rows) + 20), "Estimates with intervals")
