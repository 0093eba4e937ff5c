"""Bounds of a column's numbers: winsorizing (Tukey 1962) by order statistics, which a few wild numbers do not move.

The bounds lie five times the ninth decile of the distances from the median away from it, among distances above 0: some
eight standard deviations of a normal column, 1 in 10,000 of an exponential one, 1 in 250 of a lognormal one of shape 1.
Up to a tenth of a column may be wild. A column that is mostly 0 is bounded by what it is where it is not.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from decision.columns import Codes
from decision.ragged import Floats, Ints

FLAG = 5.0
"""Bound of what was only ever 0 or 1, on both sides of 0."""
_REACH = 5.0
_SHARE = 0.9
_NUMBERS = 4_096  # of a column, from which its bounds are taken
_TOTAL = 1 << 22
_GOLDEN = 2_654_435_769  # the golden ratio of 2^32: multiples spread evenly


class Sample:
    """Some numbers of each column: all where there are few, else those of rows that are chosen by their place.

    Args:
        count: [c] int64 how many there are.
        asked: [c] the columns.
    """

    def __init__(self, count: Ints, asked: NDArray[np.bool_]) -> None:
        each = max(min(_NUMBERS, _TOTAL // int(asked.sum())), 1)
        self._below = np.where(asked, np.minimum(each / np.maximum(count, 1), 1.0) * 2.0**32, 0.0)
        self._kept: list[tuple[Ints, Floats]] = []

    def add(self, name: Codes, value: Floats, row: Ints) -> None:
        """Look at [e] numbers with their columns and the places of their rows among all."""
        kept = ((row * _GOLDEN) & 0xFFFFFFFF) < self._below[name]
        self._kept.append((name[kept].astype(np.int64), value[kept]))

    def numbers(self) -> tuple[Ints, Floats]:
        """Return [s] the columns and the numbers."""
        return np.concatenate([name for name, _ in self._kept]), np.concatenate([value for _, value in self._kept])


def bounds(name: Ints, value: Floats, asked: Ints) -> tuple[Floats, Floats]:
    """Return [k] the lower and the upper bounds of the columns `asked` for.

    Args:
        name: [s] the column of each number.
        value: [s] the numbers, finite.
        asked: [k] columns, ascending.
    """
    middle = _ranked(name, value, asked, 0.5)
    middle = np.where(np.isnan(middle), 0.0, middle)
    off = np.abs(value - middle[np.searchsorted(asked, name)])
    apart = off > 0.0
    reach = _ranked(name[apart], off[apart], asked, _SHARE)
    reach = _REACH * np.where(np.isnan(reach), np.maximum(np.abs(middle), 1.0), reach)
    return middle - reach, middle + reach


def _ranked(name: Ints, value: Floats, asked: Ints, share: float) -> Floats:
    """Return [k] of each column the number that `share` of them lie at or below, NaN where it has none."""
    order = np.lexsort((value, name))
    name, value = name[order], value[order]
    start, stop = np.searchsorted(name, asked, side="left"), np.searchsorted(name, asked, side="right")
    found = np.full(asked.size, np.nan)
    some = stop > start
    at = start + np.floor(share * np.maximum(stop - start - 1, 0)).astype(np.int64)
    found[some] = value[at[some]]
    return found
