"""Rows for models that need a matrix: a fixed, fitted list of columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from decision.batch import Features, Floats, Ints
from decision.columns import FeatureRows
from decision.oracles.action_ids import is_id
from decision.oracles.products import Scales

MAX_COLUMNS = 4_096


class LeftOut(NamedTuple):
    """Names of columns that a fit had no room for, the most frequent first.

    Attributes:
        context: of the contexts.
        action: of the actions.
    """

    context: list[str]
    action: list[str]


NOTHING_LEFT_OUT = LeftOut([], [])


def room(context: int, action: int, weights: int, *, known: tuple[int, int] = (0, 0)) -> tuple[int, int]:
    """Return how many context and action columns may be had, so that constant, columns and products are `weights`.

    The side that has more gives way first: its rarest columns say least, and products with them cost most.

    Args:
        context: columns that there are.
        action: likewise.
        weights: at most so many.
        known: columns of either side that must stay.
    """
    c, a = context, action
    while (1 + c) * (1 + a) > weights:
        if c > known[0] and (c >= a or a <= known[1]):
            c -= 1
        elif a > known[1]:
            a -= 1
        else:
            break
    return c, a


def columns_of(rows: Sequence[Features], most: int = MAX_COLUMNS) -> tuple[list[str], list[str]]:
    """Return the names that occur in `rows`, ids apart, sorted, and the rarest, left out where they are too many."""
    held = FeatureRows.of(rows)
    times = np.bincount(held.rows, minlength=held.distinct)
    found = np.bincount(held.name, weights=np.repeat(times, np.diff(held.offsets)), minlength=len(held.names))
    counts = {name: count for name, count in zip(held.names, found.tolist(), strict=True) if count and not is_id(name)}
    names = sorted(counts, key=lambda name: (-counts[name], name))
    return sorted(names[:most]), names[most:]


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


def rows_apart(rows: Sequence[Features], positions: Mapping[str, int], scales: Scales) -> Floats:
    """Return [r, 1, c] scaled values of the columns in `rows`, 0 where a row lacks one, unknown names ignored.

    Products of this with a matrix are r products of one row: each rounds as if it came alone.

    Args:
        rows: [r] features.
        positions: of the columns.
        scales: theirs.
    """
    position, c = positions.get, len(positions)
    low, high, shift, scale = scales
    missing: list[float] = shift.tolist()  # what is scaled to 0
    out: list[list[float]] = []
    for row in rows:
        values = missing.copy()
        for name, number in row.items():
            at = position(name)
            if at is not None:
                values[at] = number
        out.append(values)
    given = np.array(out, dtype=np.float64).reshape(len(out), 1, c)
    return (np.minimum(np.maximum(given, low), high) - shift) / scale
