"""What a matrix model reads of features: columns in order of appearance, with bounds, shift and scale of their numbers.

Categories and flags (only ever 0 or 1) stay as they are; numbers are divided by the root mean square of those that are
present, and a number that most rows carry and that lies far from 0, as a year does, is centred first, so that a missing
one reads as the mean. Nothing is blown up more than twentyfold: a pixel that is almost always blank must not weigh as
much as one that tells classes apart. Columns are never dropped or moved: a model that resumes appends new ones, and old
weights keep their meaning.

A number beyond the column's bounds (`decision.oracles.bounds`) reads as the bound, in fits and afterwards: one that was
mistyped neither shrinks the others nor outweighs them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from decision.batch import Features, Floats, Ints
from decision.columns import Codes, FeatureRows
from decision.errors import FieldError
from decision.features import MAX_NUMBER
from decision.oracles.action_ids import is_id
from decision.oracles.bounds import FLAG, Sample, bounds
from decision.ragged import ragged_offsets, ragged_rows

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


class Scales(NamedTuple):
    """How the numbers of columns are read, [c] each: cut to low and high, less the shift, divided by the scale."""

    low: Floats
    high: Floats
    shift: Floats
    scale: Floats

    def of(self, value: Floats, column: Ints) -> Floats:
        """Return [e] values, scaled as those of their `column` ([e])."""
        cut = np.minimum(np.maximum(value, self.low[column]), self.high[column])
        return (cut - self.shift[column]) / self.scale[column]


class ColumnSet(msgspec.Struct, forbid_unknown_fields=True):
    """Columns by name, with what their numbers are cut to, and their shift and scale.

    Attributes:
        names: in order of appearance.
        shift: subtracted from a value that is present.
        scale: what is left is divided by it.
        low: a smaller value reads as this one; empty where the model was made before there were bounds.
        high: a larger one as this one.
    """

    names: list[str] = []
    shift: list[float] = []
    scale: list[float] = []
    low: list[float] = []
    high: list[float] = []

    def __post_init__(self) -> None:
        if not self.low and not self.high:
            self.low, self.high = [-MAX_NUMBER] * len(self.names), [MAX_NUMBER] * len(self.names)
        lengths = {len(numbers) for numbers in (self.names, self.shift, self.scale, self.low, self.high)}
        if len(lengths) > 1 or len(self) > MAX_COLUMNS:
            wanted = f"at most {MAX_COLUMNS} names, with shift and scale, and low and high"
            raise FieldError("columns", wanted=wanted, got=len(self.names))

    def __len__(self) -> int:
        return len(self.names)

    def extended(self, rows: Sequence[Features]) -> ColumnSet:
        """Return the columns with those appended that only `rows` have, ids apart; the most frequent of too many."""
        return self.extended_by(self.seen_in(rows))[0]

    def seen_in(self, rows: Sequence[Features]) -> Seen:
        """Return what is counted of the columns of `rows` that are not known yet."""
        columns = FeatureRows.of(rows)
        cuts = range(0, len(columns), _ROWS)
        return self.seen(columns.names, lambda: (columns[cut : cut + _ROWS] for cut in cuts))

    def seen(self, names: list[str], parts: Callable[[], Iterable[FeatureRows]]) -> Seen:
        """Return what is counted of the columns that are not known yet; ids get columns by `with_flags`.

        Args:
            names: of all parts, each in the same place.
            parts: gives the parts once more each time it is asked.
        """
        known = set(self.names)
        return Seen(names, parts, np.array([name not in known and not is_id(name) for name in names], np.bool_))

    def extended_by(self, seen: Seen, most: int = MAX_COLUMNS, *, numbers: bool = False) -> tuple[ColumnSet, list[str]]:
        """Return the columns with those appended that were seen, and the names that were left out.

        Args:
            seen: what `seen` returned.
            most: columns that there may be at most; the rarest new ones are left out, the rarest last.
            numbers: append those with numbers other than 0 and 1 alone.
        """
        found = np.flatnonzero(seen.count * seen.number if numbers else seen.count)
        found = found[np.argsort(seen.first[found], kind="stable")]
        room, rare = max(min(most, MAX_COLUMNS) - len(self), 0), found[:0]
        if found.size > room:
            named = np.array([seen.names[code] for code in found.tolist()])
            order = found[np.lexsort((named, -seen.count[found]))]
            found, rare = order[:room], order[room:]
        left_out = [seen.names[code] for code in rare.tolist()]
        if not found.size:
            return self, left_out
        scales = seen.scales(found)
        columns = ColumnSet(
            self.names + [seen.names[code] for code in found.tolist()],
            self.shift + scales.shift[found].tolist(),
            self.scale + scales.scale[found].tolist(),
            self.low + scales.low[found].tolist(),
            self.high + scales.high[found].tolist(),
        )
        return columns, left_out

    def with_flags(self, names: Sequence[str]) -> ColumnSet:
        """Return the columns with those of `names` appended, which are 0 or 1."""
        k = len(names)
        numbers = zip((self.shift, self.scale, self.low, self.high), (0.0, 1.0, -FLAG, FLAG), strict=True)
        return ColumnSet([*self.names, *names], *(known + [new] * k for known, new in numbers))

    def positions(self) -> dict[str, int]:
        """Return the position of every name."""
        return {name: position for position, name in enumerate(self.names)}

    def scales(self) -> Scales:
        """Return how the columns' numbers are read."""
        low, high, shift, scale = (
            np.array(numbers, dtype=np.float64) for numbers in (self.low, self.high, self.shift, self.scale)
        )
        return Scales(low, high, shift, scale)


def places_of(names: Sequence[str], columns: dict[str, int]) -> Ints:
    """Return [c] int64 the position of each of `names` in `columns`, -1 where it has none."""
    get = columns.get
    return np.array([get(name, -1) for name in names], dtype=np.int64)


def entries_of(
    rows: Sequence[Features], columns: dict[str, int], scales: Scales, places: Ints | None = None
) -> Entries:
    """Return the scaled entries of `rows`; features without a column are ignored.

    Args:
        rows: [r] features.
        columns: position by name.
        scales: of the columns.
        places: `places_of` the rows' names, for those who ask for many parts of the same rows.
    """
    if not isinstance(rows, FeatureRows):
        return _of_dictionaries(rows, columns, scales)
    name, value, offsets = rows.entries()
    where = (places_of(rows.names, columns) if places is None else places)[name]
    known = where >= 0
    if not known.all():
        where, value = where[known], value[known]
        offsets = ragged_offsets(known.astype(np.int64))[offsets]
    return Entries(where, scales.of(value, where), offsets)


def dense(rows: Sequence[Features], columns: dict[str, int], scales: Scales) -> Floats:
    """Return [r, c] scaled values of the columns in `rows`, 0 where a row lacks one; arguments as `entries_of`."""
    return written_out(entries_of(rows, columns, scales), len(columns))


def written_out(entries: Entries, width: int, rows: Ints | None = None) -> Floats:
    """Return [r, width] the rows of `entries`, or those at `rows` ([r] int64), with their zeros."""
    column, value, offsets = entries
    if rows is not None:
        taken = ragged_offsets(np.diff(offsets)[rows])
        flat = ragged_rows(offsets[rows], taken)
        column, value, offsets = column[flat], value[flat], taken
    out = np.zeros((offsets.size - 1, width))
    out[np.repeat(np.arange(offsets.size - 1), np.diff(offsets)), column] = value
    return out


def _of_dictionaries(rows: Sequence[Features], columns: dict[str, int], scales: Scales) -> Entries:
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
    scaled = scales.of(np.array(value, dtype=np.float64), where)
    return Entries(where, scaled, ragged_offsets(np.array(lengths, dtype=np.int64)))


class Seen:
    """What is counted of every name, in passes over parts of rows.

    Attributes:
        names: [c].
        count: [c] int64 entries of each name, 0 where it is not asked for.
        first: [c] int64 the first of them.
        number: [c] whether one of them was neither 0 nor 1.
    """

    def __init__(self, names: list[str], parts: Callable[[], Iterable[FeatureRows]], wanted: NDArray[np.bool_]) -> None:
        self.names, self._parts, self._size, self._rows = names, parts, wanted.size, 0
        self.count, self.first = np.zeros(wanted.size, np.int64), np.zeros(wanted.size, np.int64)
        self.number = np.zeros(wanted.size, np.bool_)
        self._sum, self._squares = np.zeros(wanted.size), np.zeros(wanted.size)
        self._least, self._most = np.full(wanted.size, np.inf), np.full(wanted.size, -np.inf)
        before = 0
        for part in self._parts() if wanted.any() else ():
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
            self.number[name[(value != 0.0) & (value != 1.0)]] = True
            np.minimum.at(self._least, name, value)
            np.maximum.at(self._most, name, value)
            before += name.size
        self.count[~wanted] = 0

    @property
    def names_seen(self) -> int:
        """How many names there are of those that are asked for."""
        return int(np.count_nonzero(self.count))

    def scales(self, found: Ints) -> Scales:
        """Return how the numbers of the names at `found` are read; [c], of all names."""
        count = np.maximum(self.count, 1)
        low, high = np.full(self._size, -FLAG), np.full(self._size, FLAG)
        asked = np.zeros(self._size, np.bool_)
        asked[found] = True
        asked &= self.number
        total, squares = self._sum, self._squares
        if asked.any():
            low[asked], high[asked] = self._bounds(asked)
            beyond = asked & ((self._least < low) | (self._most > high))
            if beyond.any():
                sums = np.zeros((2, self._size))
                for name, value in self._cut(low, high):
                    sums[0] += np.bincount(name, weights=value, minlength=self._size)
                    sums[1] += np.bincount(name, weights=value * value, minlength=self._size)
                total, squares = np.where(beyond, sums[0], total), np.where(beyond, sums[1], squares)
        shift, scale = np.zeros(self._size), np.ones(self._size)
        mean, apart = total / count, np.zeros(self._size)
        common = asked & (self.count > _COMMON * self._rows)
        if common.any():
            for name, value in self._cut(low, high):
                apart += np.bincount(name, weights=(value - mean[name]) ** 2, minlength=self._size)
        spread = np.sqrt(apart / count)
        centred = common & (np.abs(mean) > np.maximum(spread, 1.0))
        root = np.maximum(np.sqrt(squares / count), _SMALLEST)
        shift[centred] = mean[centred]
        scale[asked] = np.where(centred, np.maximum(spread, 1.0), root)[asked]
        return Scales(low, high, shift, scale)

    def _cut(self, low: Floats, high: Floats) -> Iterator[tuple[Codes, Floats]]:
        for part in self._parts():
            name, value, _ = part.entries()
            yield name, np.minimum(np.maximum(value, low[name]), high[name])

    def _bounds(self, asked: NDArray[np.bool_]) -> tuple[Floats, Floats]:
        """Return the bounds of the names that are `asked` for, from some of their numbers."""
        sample = Sample(self.count, asked)
        first = 0
        for part in self._parts():
            name, value, offsets = part.entries()
            sample.add(name, value, np.repeat(np.arange(first, first + len(part)), np.diff(offsets)))
            first += len(part)
        return bounds(*sample.numbers(), np.flatnonzero(asked))
