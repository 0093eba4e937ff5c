"""Pictures kept with a version: what its policy is worth beside the others, and how well it predicts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pipelines.evaluation.evaluate import Evaluated

_INK, _MUTED, _ACCENT = "#1c1f26", "#8a93a3", "#2b6cb0"


def evaluation_chart(evaluated: Evaluated) -> bytes:
    """Return a PNG: values with their intervals, and the calibration of the predictions."""
    import altair as alt
    import vl_convert

    values = [
        {"policy": value.policy, "value": value.dr.value, "low": value.dr.low, "high": value.dr.high}
        for value in evaluated.values
        if np.isfinite([value.dr.low, value.dr.high]).all()
    ]
    chart: Any = _values(alt, values)
    if evaluated.health.calibration:
        chart = alt.hconcat(chart, _calibration(alt, evaluated), spacing=40)
    title = alt.TitleParams(
        f"{evaluated.loop}, version {evaluated.version}",
        subtitle=f"{evaluated.rows} decisions held out of training; doubly robust values with 95% intervals",
        anchor="start",
        color=_INK,
        subtitleColor=_MUTED,
    )
    spec = chart.properties(title=title, background="white", padding=16).configure_view(stroke=None)
    return vl_convert.vegalite_to_png(spec.to_json(), scale=2)


def _values(alt: Any, rows: list[dict[str, Any]]) -> Any:
    source = alt.Chart(alt.Data(values=rows)).encode(y=alt.Y("policy:N", title=None, sort=None))
    axis = alt.X("low:Q", title="reward per decision", scale=alt.Scale(zero=False))
    bars = source.mark_rule(strokeWidth=2, color=_ACCENT).encode(x=axis, x2="high:Q")
    points = source.mark_point(filled=True, size=90, color=_ACCENT, opacity=1).encode(x="value:Q")
    return (bars + points).properties(width=320, height=max(60, 40 * len(rows)))


def _calibration(alt: Any, evaluated: Evaluated) -> Any:
    rows = [
        {"predicted": entry.predicted, "observed": entry.observed, "n": entry.n}
        for entry in evaluated.health.calibration
    ]
    ends = [value for row in rows for value in (row["predicted"], row["observed"])]
    line = [{"predicted": end, "observed": end} for end in (min(ends), max(ends))]
    x, y = alt.X("predicted:Q", title="predicted reward"), alt.Y("observed:Q", title="observed reward")
    ideal = alt.Chart(alt.Data(values=line)).mark_line(strokeDash=[4, 4], color=_MUTED).encode(x=x, y=y)
    bins = alt.Chart(alt.Data(values=rows)).mark_point(filled=True, size=70, color=_INK, opacity=1).encode(x=x, y=y)
    return (ideal + bins).properties(width=220, height=220)
