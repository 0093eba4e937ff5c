"""Figures of a replay's report, as SVG that follows the page's colours."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import altair as alt

from pipelines.reports.figures import HEIGHT, INK, MUTED, SERIES, WIDTH, Rows, svg

# The page's font may be wider than the one that names were measured with when the figure was drawn.
_PADDING = {"left": 24, "right": 5, "top": 5, "bottom": 5}


def estimates(rows: Rows, *, logged: float) -> str:
    """Return every estimate with its intervals; the band is that of the one to read first.

    Args:
        rows: ``name``, ``value``, ``low``, ``high``, ``first`` (the one to read first), ``apart`` (further from it than
            both intervals allow) and, of the bootstrap, ``boot_low`` and ``boot_high`` or None.
        logged: mean logged reward.
    """
    height = 26 * len(rows) + 20
    # One interval far wider than the others would hide them: the axis ends at twice the widest of the rest.
    widths = sorted(row["high"] - row["low"] for row in rows)
    reach = 2.0 * widths[max(len(widths) - 2, 0)]
    ends = [max(row["low"], row["value"] - reach) for row in rows] + [logged]
    tops = [min(row["high"], row["value"] + reach) for row in rows] + [logged]
    scale = alt.Scale(domain=[min(ends), max(tops)], nice=False, clamp=True, padding=16)
    shown = [row for row in rows if row["first"]]
    layers: list[Any] = []
    x = alt.X("low:Q", title="reward per decision", scale=scale, axis=alt.Axis(tickCount=6, labelOverlap=True))
    if shown:
        band = alt.Chart(alt.Data(values=shown)).mark_rect(color=SERIES[0], opacity=0.12)
        layers.append(band.encode(x=x, x2="high:Q"))
    source = alt.Chart(alt.Data(values=rows)).encode(y=alt.Y("name:N", title=None, sort=None))
    drawn = alt.Chart(alt.Data(values=[row for row in rows if row["boot_low"] is not None]))
    layers += [
        alt.Chart(alt.Data(values=[{"low": logged}])).mark_rule(color=INK, strokeDash=[2, 3]).encode(x=x),
        source.mark_rule(color=SERIES[0], strokeWidth=2).encode(x=x, x2="high:Q"),
        drawn.mark_tick(color=SERIES[1], thickness=2, size=12).encode(
            x=alt.X("boot_low:Q"), y=alt.Y("name:N", sort=None)
        ),
        drawn.mark_tick(color=SERIES[1], thickness=2, size=12).encode(
            x=alt.X("boot_high:Q"), y=alt.Y("name:N", sort=None)
        ),
        source.mark_point(filled=True, size=70, opacity=1).encode(
            x="value:Q", color=alt.condition(alt.datum.apart, alt.value(SERIES[4]), alt.value(SERIES[0]))
        ),
    ]
    return svg(
        alt.layer(*layers).properties(width=WIDTH, height=height, padding=_PADDING), "Every estimate with its intervals"
    )


def trend(rows: Rows) -> str:
    """Return the confidence sequence of the lift over time; `rows` have ``until``, ``low`` and ``high``."""
    first, last = (datetime.fromisoformat(rows[at]["until"]) for at in (0, -1))
    span = last - first
    short = "%H:%M:%S" if span < timedelta(hours=2) else "%d %b %H:%M" if span < timedelta(days=5) else "%d %b"
    title = f"{first:%d %B %Y}, UTC" if first.date() == last.date() else "UTC"
    x = alt.X("until:T", title=title, axis=alt.Axis(format=short, labelAngle=0, tickCount=5, labelOverlap=True))
    band = alt.Chart(alt.Data(values=rows)).mark_area(color=SERIES[0], opacity=0.25, interpolate="step-after")
    band = band.encode(x=x, y=alt.Y("low:Q", title="lift over the logged policy"), y2="high:Q")
    zero = alt.Chart(alt.Data(values=[{"low": 0}])).mark_rule(color=INK, strokeDash=[2, 3]).encode(y="low:Q")
    return svg((band + zero).properties(width=WIDTH, height=HEIGHT), "Lift over time, an interval that always holds")


def agreement(rows: Rows, *, low: float, high: float) -> str:
    """Return how the tuned estimators move with their parameter, beside the interval of the estimate to read first.

    Args:
        rows: ``name``, ``tau``, ``value`` and ``chosen`` (by SLOPE).
        low: lower end of that interval.
        high: upper end.
    """
    names = list(dict.fromkeys(row["name"] for row in rows))
    color = alt.Color("name:N", scale=alt.Scale(domain=names, range=list(SERIES[: len(names)])))
    ticks = [10**power for power in range(4)]
    axis = alt.Axis(format=",.0f", values=ticks)
    x = alt.X("tau:Q", title="largest weight trusted", scale=alt.Scale(type="log", nice=False, padding=10), axis=axis)
    y = alt.Y("value:Q", title="reward per decision", scale=alt.Scale(zero=False))
    band = alt.Chart(alt.Data(values=[{"value": low, "high": high}])).mark_rect(color=MUTED, opacity=0.18)
    lines = alt.Chart(alt.Data(values=rows)).encode(x=x, y=y, color=color)
    chosen = lines.transform_filter(alt.datum.chosen).mark_point(filled=True, size=80, opacity=1)
    chart = band.encode(y=y, y2="high:Q") + lines.mark_line(strokeWidth=2) + chosen
    return svg(chart.properties(width=WIDTH, height=HEIGHT), "Agreement of the tuned estimators")


def forest(rows: Rows, *, whole: float) -> str:
    """Return the value by segment; `rows` have ``name``, ``value``, ``low``, ``high``, ``rows``."""
    source = alt.Chart(alt.Data(values=rows)).encode(y=alt.Y("name:N", title=None, sort=None))
    axis = alt.Axis(tickCount=6, labelOverlap=True)
    x = alt.X("low:Q", title="reward per decision", scale=alt.Scale(zero=False), axis=axis)
    bars = source.mark_rule(color=SERIES[0], strokeWidth=2).encode(x=x, x2="high:Q")
    size = alt.Size("rows:Q", legend=None, scale=alt.Scale(range=[20, 160]))
    points = source.mark_square(opacity=1, color=SERIES[0]).encode(x="value:Q", size=size)
    rule = alt.Chart(alt.Data(values=[{"low": whole}])).mark_rule(color=INK, strokeDash=[2, 3]).encode(x="low:Q")
    chart = (rule + bars + points).properties(width=WIDTH, height=22 * len(rows) + 20, padding=_PADDING)
    return svg(chart, "Value by segment, intervals that hold together")
