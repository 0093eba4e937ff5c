"""Accuracy against violations: one point for each version that came to the gate, and its drawing."""

from __future__ import annotations

from typing import Any

import msgspec

from pipelines.fairness.store import Governance


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """A version as the gate saw it last.

    Attributes:
        version: the version.
        violating: share of the upheld pairs that it violated.
        value: its estimated reward per decision.
        passed: whether the panels let it pass.
    """

    version: str
    violating: float
    value: float
    passed: bool


def frontier(store: Governance, loop: str) -> list[Point]:
    """Return the versions that came to the gate with an evaluation, in that order."""
    found: dict[str, Point] = {}
    for entry in store.entries(kind="gate", subject=loop):
        told: dict[str, Any] = msgspec.json.decode(entry.body)
        numbers: dict[str, float | None] = told["numbers"]
        value, upheld = numbers.get("fairness_value"), numbers.get("fairness_upheld") or 0.0
        if value is not None:
            share = (numbers.get("fairness_violating") or 0.0) / upheld if upheld else 0.0
            found[told["version"]] = Point(version=told["version"], violating=share, value=value, passed=told["passed"])
    return list(found.values())


def draw(points: list[Point]) -> str:
    """Return the points as a picture."""
    import altair as alt

    from pipelines.reports.figures import HEIGHT, INK, SERIES, WIDTH, svg

    rows = [msgspec.to_builtins(point) | {"gate": "passed" if point.passed else "refused"} for point in points]
    source = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X("violating:Q", title="share of upheld pairs still violating", axis=alt.Axis(format="%")),
        y=alt.Y("value:Q", title="estimated reward per decision", scale=alt.Scale(zero=False, padding=12)),
    )
    colour = alt.Color("gate:N", scale=alt.Scale(domain=["passed", "refused"], range=[SERIES[0], SERIES[1]]))
    dots = source.mark_point(filled=True, size=110, opacity=1).encode(color=colour)
    names = source.mark_text(align="left", dx=9, dy=-7, color=INK, fontSize=12).encode(text="version:N")
    return svg((dots + names).properties(width=WIDTH, height=HEIGHT), "Reward against violations by version")
