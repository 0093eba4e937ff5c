"""Rows for models that need a matrix: a fixed, fitted list of columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from decision.batch import Features, Floats, Ints
from decision.columns import FeatureRows

MAX_COLUMNS = 4_096


def columns_of(rows: Sequence[Features]) -> list[str]:
    """Return the names that occur in `rows`, sorted; the most frequent 4,096 when there are more."""
    held = FeatureRows.of(rows)
    times = np.bincount(held.rows, minlength=held.distinct)
    found = np.bincount(held.name, weights=np.repeat(times, np.diff(held.offsets)), minlength=len(held.names))
    counts = {name: count for name, count in zip(held.names, found.tolist(), strict=True) if count}
    names = sorted(counts, key=lambda name: (-counts[name], name))[:MAX_COLUMNS]
    return sorted(names)


def positions_of(columns: Sequence[str]) -> dict[str, int]:
    """Return the position of every column."""
    return {name: position for position, name in enumerate(columns)}


def entries(rows: Sequence[Features], positions: Mapping[str, int]) -> tuple[Ints, Ints, Floats]:
    """Return row, column and value of every feature of `rows` that has a column; unknown names are ignored."""
    if isinstance(rows, FeatureRows):
        name, value, offsets = rows.entries()
        row = np.repeat(np.arange(len(rows), dtype=np.int64), np.diff(offsets))
        column = np.array([positions.get(each, -1) for each in rows.names], dtype=np.int64)[name]
        known = column >= 0
        return row[known], column[known], value[known]
    r: list[int] = []
    c: list[int] = []
    values: list[float] = []
    for number, row in enumerate(rows):
        for name, value in row.items():
            position = positions.get(name)
            if position is not None:
                r.append(number)
                c.append(position)
                values.append(value)
    return np.array(r, dtype=np.int64), np.array(c, dtype=np.int64), np.array(values, dtype=np.float64)


def rows_apart(
    rows: Sequence[Features], positions: Mapping[str, int], shift: Sequence[float], scale: Sequence[float]
) -> Floats:
    """Return [r, 1, c] scaled values of the columns in `rows`, 0 where a row lacks one, unknown names ignored.

    Products of this with a matrix are r products of one row: each rounds as if it came alone.

    Args:
        rows: [r] features.
        positions: of the columns.
        shift: [c].
        scale: [c].
    """
    position, c = positions.get, len(positions)
    out: list[list[float]] = []
    for row in rows:
        values = [0.0] * c
        for name, number in row.items():
            at = position(name)
            if at is not None:
                values[at] = (number - shift[at]) / scale[at]
        out.append(values)
    return np.array(out, dtype=np.float64).reshape(len(out), 1, c)


def dense(rows: Sequence[Features], positions: Mapping[str, int], *, missing: float = 0.0) -> Floats:
    """Return [r, c] values of the columns in `rows`; `missing` where a row lacks one, unknown names ignored."""
    out = np.full((len(rows), len(positions)), missing)
    r, c, values = entries(rows, positions)
    out[r, c] = values
    return out
