"""Figures written by hand: they are SVG, say what they show, and hold whatever numbers there are."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.reports.lines import Point, against, band, nice, spark

numbers = st.floats(-1e9, 1e9, allow_nan=False).map(lambda value: round(value, 6))


@given(st.lists(numbers, min_size=1, max_size=30))
def test_figures_are_svg_with_a_name_for_who_cannot_see_them(values: list[float]) -> None:
    points = [Point(f"<{i}>", value, value - 1.0, value + 1.0, value) for i, value in enumerate(values)]
    pairs = [(value, value, None if i % 2 else 0.5) for i, value in enumerate(values)]
    drawn = [band(points, "a & b"), against(pairs, "a & b")] + ([spark(values, "a & b")] if len(values) > 1 else [])
    for text in drawn:
        tree = ElementTree.fromstring(text)
        assert tree.attrib["aria-label"] == "a & b"
        assert "nan" not in text


def test_without_numbers_nothing_is_drawn() -> None:
    assert band([], "none") == against([], "none") == spark([1.0], "one") == ""


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.29, 0.52), (3.0, 3.0), (-1e-7, 2e-7), (0.0, 0.0), (-5e8, 3)])
def test_ticks_are_few_and_round_and_hold_what_is_between(low: float, high: float) -> None:
    ticks = nice(low, high)
    assert 2 <= len(ticks) <= 7
    assert ticks[0] <= low + 1e-9 * abs(low)
    assert ticks[-1] >= high - 1e-9 * abs(high)
    assert ticks == sorted(set(ticks))
