"""Pictures kept with a version: what its policy is worth beside the others, and how well it predicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from decision.ope.estimate import Estimate
from pipelines.reports.figures import INK, MUTED, SERIES


def evaluation_chart(
    title: str, values: Mapping[str, Estimate], calibration: Sequence[tuple[float, float]], *, rows: int
) -> bytes:
    """Return a PNG: values with their intervals, and the calibration of the predictions.

    Args:
        title: what was evaluated.
        values: by policy.
        calibration: predicted and observed reward of each bin; empty without predictions.
        rows: decisions held out of training.
    """
    import altair as alt
    import vl_convert

    shown = [
        {"policy": policy, "value": estimate.value, "low": estimate.low, "high": estimate.high}
        for policy, estimate in values.items()
        if np.isfinite([estimate.low, estimate.high]).all()
    ]
    chart: Any = _values(alt, shown)
    if calibration:
        chart = alt.hconcat(chart, _calibration(alt, calibration), spacing=40)
    heading = alt.TitleParams(
        title,
        subtitle=f"{rows} decisions held out of training; doubly robust values with 95% intervals",
        anchor="start",
        color=INK,
        subtitleColor=MUTED,
    )
    spec = chart.properties(title=heading, background="white", padding=16).configure_view(stroke=None)
    return vl_convert.vegalite_to_png(spec.to_json(), scale=2)


def _values(alt: Any, rows: list[dict[str, Any]]) -> Any:
    source = alt.Chart(alt.Data(values=rows)).encode(y=alt.Y("policy:N", title=None, sort=None))
    axis = alt.X("low:Q", title="reward per decision", scale=alt.Scale(zero=False))
    bars = source.mark_rule(strokeWidth=2, color=SERIES[0]).encode(x=axis, x2="high:Q")
    points = source.mark_point(filled=True, size=90, color=SERIES[0], opacity=1).encode(x="value:Q")
    return (bars + points).properties(width=320, height=max(60, 40 * len(rows)))


def _calibration(alt: Any, calibration: Sequence[tuple[float, float]]) -> Any:
    rows = [{"predicted": predicted, "observed": observed} for predicted, observed in calibration]
    ends = [value for row in rows for value in (row["predicted"], row["observed"])]
    line = [{"predicted": end, "observed": end} for end in (min(ends), max(ends))]
    x, y = alt.X("predicted:Q", title="predicted reward"), alt.Y("observed:Q", title="observed reward")
    ideal = alt.Chart(alt.Data(values=line)).mark_line(strokeDash=[4, 4], color=MUTED).encode(x=x, y=y)
    bins = alt.Chart(alt.Data(values=rows)).mark_point(filled=True, size=70, color=INK, opacity=1).encode(x=x, y=y)
    return (ideal + bins).properties(width=220, height=220)
