"""Small figures written as SVG by hand: pages of the service draw them in a millisecond, without a library of charts.

They follow the page's colours by its variables, in light and dark, and carry a sentence for those who cannot see them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

WIDTH, HEIGHT = 520, 210
_SQUARE = 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 12, 14, 30
_TICKS = 4


class Point(NamedTuple):
    """A point of a line, with an interval and a single observation beside it.

    Attributes:
        label: what is said of it below the axis.
        value: of the line.
        low: lower end of its interval.
        high: upper end.
        single: an observation of its own; None without one.
    """

    label: str
    value: float
    low: float
    high: float
    single: float | None = None


def spark(values: Sequence[float], description: str) -> str:
    """Return a line without axes; "" of fewer than two values."""
    if len(values) < 2:
        return ""
    low, high = min(values), max(values)
    spread = (high - low) or 1.0
    step = 216 / (len(values) - 1)
    line = " ".join(f"{2 + i * step:.1f},{33 - 30 * (value - low) / spread:.1f}" for i, value in enumerate(values))
    last = line.rsplit(" ", 1)[1].split(",")
    return (
        f'<svg class="spark" viewBox="0 0 220 36" role="img" aria-label="{escape(description)}">'
        f'<polyline points="{line}" fill="none" stroke="var(--s1)" stroke-width="2"/>'
        f'<circle cx="{last[0]}" cy="{last[1]}" r="3" fill="var(--s1)"/></svg>'
    )


def band(points: Sequence[Point], description: str) -> str:
    """Return a line in the band of its intervals, and the single observations as dots; "" without a point."""
    if not points:
        return ""
    singles = [point.single for point in points if point.single is not None]
    low = min([point.low for point in points] + singles)
    high = max([point.high for point in points] + singles)
    ticks = nice(low, high)
    low, high = min(low, ticks[0]), max(high, ticks[-1])
    xs = [_along(i, len(points)) for i in range(len(points))]

    def y(value: float) -> float:
        return HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * (value - low) / ((high - low) or 1.0)

    drawn = [_grid(y(tick), f"{tick:.4g}") for tick in ticks]
    if len(points) == 1:
        point, x = points[0], xs[0]
        drawn.append(f'<path d="M{x:.1f} {y(point.low):.1f}V{y(point.high):.1f}" stroke="var(--s1)" stroke-width="3"/>')
    else:
        around = [f"{x:.1f},{y(point.high):.1f}" for x, point in zip(xs, points, strict=True)]
        around += [f"{x:.1f},{y(point.low):.1f}" for x, point in zip(xs[::-1], points[::-1], strict=True)]
        line = " ".join(f"{x:.1f},{y(point.value):.1f}" for x, point in zip(xs, points, strict=True))
        drawn.append(f'<polygon points="{" ".join(around)}" fill="var(--s1)" fill-opacity="0.18"/>')
        drawn.append(f'<polyline points="{line}" fill="none" stroke="var(--s1)" stroke-width="2.5"/>')
    for x, point in zip(xs, points, strict=True):
        if point.single is not None:
            drawn.append(f'<circle cx="{x:.1f}" cy="{y(point.single):.1f}" r="3.5" fill="var(--s2)"/>')
    drawn.append(f'<circle cx="{xs[-1]:.1f}" cy="{y(points[-1].value):.1f}" r="4" fill="var(--s1)"/>')
    return _framed([*drawn, *_labels([point.label for point in points], xs)], description)


def against(points: Sequence[tuple[float, float, float | None]], description: str) -> str:
    """Return observed means against predicted ones, with the line on which they are equal; "" without a point.

    Args:
        points: (predicted, observed, standard error of the observed one or None).
        description: of the figure.
    """
    if not points:
        return ""
    ends = [end for x, y, error in points for end in (x, y - 2 * (error or 0.0), y + 2 * (error or 0.0))]
    ticks = nice(min(ends), max(ends))
    low, high = min(min(ends), ticks[0]), max(max(ends), ticks[-1])
    scale = (high - low) or 1.0

    def at(x: float, y: float) -> tuple[float, float]:
        across = _LEFT + (_SQUARE - _LEFT - _RIGHT) * (x - low) / scale
        return across, HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * (y - low) / scale

    drawn = [_grid(at(low, tick)[1], f"{tick:.4g}", _SQUARE) for tick in ticks]
    (x1, y1), (x2, y2) = at(low, low), at(high, high)
    drawn.append(f'<path d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}" stroke="var(--muted)" stroke-dasharray="4 4"/>')
    for x, y, error in points:
        across, up = at(x, y)
        if error is not None:
            top, bottom = at(x, y + 2 * error)[1], at(x, y - 2 * error)[1]
            drawn.append(f'<path d="M{across:.1f} {top:.1f}V{bottom:.1f}" stroke="var(--s1)" stroke-width="2"/>')
        drawn.append(f'<circle cx="{across:.1f}" cy="{up:.1f}" r="4" fill="var(--s1)"/>')
    names = [f"{tick:.4g}" for tick in ticks]
    return _framed([*drawn, *_labels(names, [at(tick, low)[0] for tick in ticks], _SQUARE)], description, _SQUARE)


def nice(low: float, high: float) -> list[float]:
    """Return three to six round numbers from below `low` to above `high`, or nearly."""
    spread = (high - low) or abs(high) or 1.0
    rough = spread / _TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1.0, 2.0, 2.5, 5.0, 10.0) if factor * power >= rough)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [step * i for i in range(first, max(last, first + 1) + 1)]


def _along(i: int, count: int) -> float:
    room = WIDTH - _LEFT - _RIGHT
    return _LEFT + room / 2 if count == 1 else _LEFT + 8 + (room - 16) * i / (count - 1)


def _grid(y: float, label: str, width: int = WIDTH) -> str:
    line = f'<path d="M{_LEFT} {y:.1f}H{width - _RIGHT}" stroke="var(--muted)" stroke-opacity="0.25"/>'
    return f'{line}<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{label}</text>'


def _labels(names: Sequence[str], xs: Sequence[float], width: int = WIDTH) -> list[str]:
    """Return the labels that have room, the last one always."""
    out: list[str] = []
    left = float("inf")
    for name, x in zip(names[::-1], xs[::-1], strict=True):
        half = 3.9 * len(name) + 6
        centre = min(max(x, _LEFT - 20 + half), width - half)
        if centre + half <= left:
            left = centre - half
            out.append(f'<text x="{centre:.1f}" y="{HEIGHT - 8}" text-anchor="middle">{escape(name)}</text>')
    return out


def _framed(drawn: Sequence[str], description: str, width: int = WIDTH) -> str:
    head = f'<svg class="chart" viewBox="0 0 {width} {HEIGHT}" role="img" aria-label="{escape(description)}">'
    return f"{head}{''.join(drawn)}</svg>"
