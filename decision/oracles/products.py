"""What a matrix model reads of features: columns in order of appearance, each with the shift and scale of its numbers.

Categories and flags (only ever 0 or 1) stay as they are; numbers are divided by the root mean square of those that are
present, and a number that most rows carry and that lies far from 0, as a year does, is centred first, so that a missing
one reads as the mean. Nothing is blown up more than twentyfold: a pixel that is almost always blank must not weigh as
much as one that tells classes apart. Columns are never dropped or moved: a model that resumes appends new ones, and old
weights keep their meaning.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from decision.batch import Features, Floats, Ints
from decision.columns import FeatureRows
from decision.errors import FieldError
from decision.ragged import ragged_offsets

MAX_COLUMNS = 4_096
_COMMON = 0.5
_SMALLEST = 0.05
_ROWS = 65_536


class Entries(NamedTuple):
    """Features of r rows that have a column: row after row, [e] each, and where each row begins, [r + 1]."""

    column: Ints
    value: Floats
    offsets: Ints

    @property
    def row(self) -> Ints:
        """[e] int64 row of every entry."""
        return np.repeat(np.arange(self.offsets.size - 1, dtype=np.int64), np.diff(self.offsets))


class ColumnSet(msgspec.Struct, forbid_unknown_fields=True):
    """Columns by name, with their numbers' shift and scale.

    Attributes:
        names: in order of appearance.
        shift: subtracted from a value that is present.
        scale: what is left is divided by it.
    """

    names: list[str] = []
    shift: list[float] = []
    scale: list[float] = []

    def __post_init__(self) -> None:
        if not len(self.names) == len(self.shift) == len(self.scale) <= MAX_COLUMNS:
            raise FieldError(
                "columns", wanted=f"at most {MAX_COLUMNS} names, with shift and scale", got=len(self.names)
            )

    def __len__(self) -> int:
        return len(self.names)

    def extended(self, rows: Sequence[Features]) -> ColumnSet:
        """Return the columns with those appended that only `rows` have; the most frequent when they are too many."""
        columns = FeatureRows.of(rows)
        cuts = range(0, len(columns), _ROWS)
        return self.extended_by(columns.names, lambda: (columns[cut : cut + _ROWS] for cut in cuts))

    def extended_by(self, names: list[str], parts: Callable[[], Iterable[FeatureRows]]) -> ColumnSet:
        """Return the columns with those appended that only the rows of `parts` have, as `extended` by all of them.

        Args:
            names: of all parts, each in the same place.
            parts: gives the parts once more each time it is asked.
        """
        known = set(self.names)
        new = np.array([name not in known for name in names], dtype=np.bool_)
        if not new.any():
            return self
        seen = _Seen(parts, new)
        found = np.flatnonzero(seen.count)
        found = found[np.argsort(seen.first[found], kind="stable")]
        room = MAX_COLUMNS - len(self)
        if found.size > room:
            named = np.array([names[code] for code in found.tolist()])
            found = found[np.lexsort((named, -seen.count[found]))[:room]]
        shift, scale = seen.shift_and_scale()
        return ColumnSet(
            self.names + [names[code] for code in found.tolist()],
            self.shift + shift[found].tolist(),
            self.scale + scale[found].tolist(),
        )

    def positions(self) -> dict[str, int]:
        """Return the position of every name."""
        return {name: position for position, name in enumerate(self.names)}


def places_of(names: Sequence[str], columns: dict[str, int]) -> Ints:
    """Return [c] int64 the position of each of `names` in `columns`, -1 where it has none."""
    get = columns.get
    return np.array([get(name, -1) for name in names], dtype=np.int64)


def entries_of(
    rows: Sequence[Features], columns: dict[str, int], shift: Floats, scale: Floats, places: Ints | None = None
) -> Entries:
    """Return the scaled entries of `rows`; features without a column are ignored.

    Args:
        rows: [r] features.
        columns: position by name.
        shift: [c].
        scale: [c].
        places: `places_of` the rows' names, for those who ask for many parts of the same rows.
    """
    if not isinstance(rows, FeatureRows):
        return _of_dictionaries(rows, columns, shift, scale)
    name, value, offsets = rows.entries()
    where = (places_of(rows.names, columns) if places is None else places)[name]
    known = where >= 0
    if not known.all():
        where, value = where[known], value[known]
        offsets = ragged_offsets(known.astype(np.int64))[offsets]
    return Entries(where, (value - shift[where]) / scale[where], offsets)


def _of_dictionaries(rows: Sequence[Features], columns: dict[str, int], shift: Floats, scale: Floats) -> Entries:
    column: list[int] = []
    value: list[float] = []
    lengths: list[int] = []
    get = columns.get
    for features in rows:
        before = len(column)
        for name, number in features.items():
            position = get(name)
            if position is not None:
                column.append(position)
                value.append(number)
        lengths.append(len(column) - before)
    where = np.array(column, dtype=np.int64)
    scaled = (np.array(value, dtype=np.float64) - shift[where]) / scale[where]
    return Entries(where, scaled, ragged_offsets(np.array(lengths, dtype=np.int64)))


class _Seen:
    """What is counted of every name, in passes over parts of rows.

    Attributes:
        count: [c] int64 entries of each name, 0 where it is not asked for.
        first: [c] int64 the first of them.
    """

    def __init__(self, parts: Callable[[], Iterable[FeatureRows]], wanted: NDArray[np.bool_]) -> None:
        self._parts, self._size, self._rows = parts, wanted.size, 0
        self.count, self.first = np.zeros(wanted.size, np.int64), np.zeros(wanted.size, np.int64)
        self._sum, self._squares = np.zeros(wanted.size), np.zeros(wanted.size)
        self._number = np.zeros(wanted.size, np.bool_)
        before = 0
        for part in self._parts():
            name, value, _ = part.entries()
            self._rows += len(part)
            count = np.bincount(name, minlength=self._size)
            first = np.zeros(self._size, np.int64)
            first[name[::-1]] = np.arange(before + name.size - 1, before - 1, -1)  # the last to be written stays
            fresh = (count > 0) & (self.count == 0)
            self.first[fresh] = first[fresh]
            self.count += count
            self._sum += np.bincount(name, weights=value, minlength=self._size)
            self._squares += np.bincount(name, weights=value * value, minlength=self._size)
            self._number[name[(value != 0.0) & (value != 1.0)]] = True
            before += name.size
        self.count[~wanted] = 0

    def shift_and_scale(self) -> tuple[Floats, Floats]:
        """Return [c] the shift and the scale of each name's numbers."""
        shift, scale = np.zeros(self._size), np.ones(self._size)
        count = np.maximum(self.count, 1)
        mean, apart = self._sum / count, np.zeros(self._size)
        common = self._number & (self.count > _COMMON * self._rows)
        if common.any():
            for part in self._parts():
                name, value, _ = part.entries()
                apart += np.bincount(name, weights=(value - mean[name]) ** 2, minlength=self._size)
        spread = np.sqrt(apart / count)
        centred = common & (np.abs(mean) > np.maximum(spread, 1.0))
        root = np.maximum(np.sqrt(self._squares / count), _SMALLEST)
        shift[centred] = mean[centred]
        scale[self._number] = np.where(centred, np.maximum(spread, 1.0), root)[self._number]
        return shift, scale
