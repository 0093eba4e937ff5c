"""Figures of the demo of policies with memory."""

from __future__ import annotations

import altair as alt

from pipelines.reports.figures import HEIGHT, MUTED, SERIES, WIDTH, Rows, svg

_NAMES = ("uniform", "bandit", "session")
_COLOURS = (SERIES[7], SERIES[1], SERIES[0])


def by_day(rows: Rows, title: str, *, least: float | None = None) -> str:
    """Return how something went on the days of users' stays.

    Args:
        rows: ``policy`` (``uniform``, ``bandit`` or ``session``), ``day`` from 1, and ``value``.
        title: of the values.
        least: where their axis begins; None for 0.
    """
    chart = alt.Chart(alt.Data(values=rows)).mark_line(strokeWidth=2, point=alt.OverlayMarkDef(size=45))
    chart = chart.encode(
        x=alt.X("day:O", title="day of a reader's stay", axis=alt.Axis(labelAngle=0)),
        y=alt.Y("value:Q", title=title, scale=alt.Scale(zero=least is None, nice=True)),
        color=_color(),
    )
    return svg(chart.properties(width=WIDTH, height=HEIGHT), f"{title} by day, by policy")


def rollout(cohorts: Rows, weights: Rows) -> str:
    """Return returns per user by cohort, both policies, over the share that the guard gave the new one.

    Args:
        cohorts: ``cohort`` from 1, ``policy`` and ``value``.
        weights: ``cohort``, ``share`` in [0, 1].
    """
    x = alt.X("cohort:O", title="cohort", axis=alt.Axis(labelAngle=0))
    shares = alt.Chart(alt.Data(values=weights)).mark_bar(color=MUTED, opacity=0.3)
    shares = shares.encode(x=x, y=alt.Y("share:Q", title="share of the new policy", scale=alt.Scale(domain=[0, 1])))
    points = alt.Chart(alt.Data(values=cohorts)).mark_line(strokeWidth=2, point=alt.OverlayMarkDef(size=45))
    points = points.encode(
        x=x, y=alt.Y("value:Q", title="return per reader", scale=alt.Scale(zero=True)), color=_color()
    )
    both = alt.layer(shares, points).resolve_scale(y="independent")
    return svg(both.properties(width=WIDTH, height=HEIGHT), "Return per reader and the guard's share by cohort")


def belief(rows: Rows) -> str:
    """Return what was promised of each version, beside what came true; ``version``, ``what``, ``value``."""
    names = list(dict.fromkeys(row["what"] for row in rows))
    colours = alt.Scale(domain=names, range=[SERIES[3], SERIES[5], SERIES[2]])
    chart = alt.Chart(alt.Data(values=rows)).mark_point(filled=True, size=90, opacity=1)
    chart = chart.encode(
        x=alt.X("value:Q", title="reward per visit", scale=alt.Scale(zero=False, padding=20)),
        y=alt.Y("version:O", title="version"),
        color=alt.Color("what:N", scale=colours, legend=alt.Legend(columns=1)),
        shape=alt.Shape("what:N", scale=alt.Scale(domain=names), legend=None),
    )
    return svg(chart.properties(width=WIDTH, height=120), "Promised and true reward per visit by version")


def _color() -> alt.Color:
    return alt.Color(
        "policy:N", scale=alt.Scale(domain=list(_NAMES), range=list(_COLOURS)), legend=alt.Legend(columnPadding=18)
    )
