"""What a matrix model reads of features: columns in order of appearance, each with the shift and scale of its numbers.

Categories and flags (only ever 0 or 1) stay as they are; numbers are divided by the root mean square of those that are
present, and a number that most rows carry and that lies far from 0, as a year does, is centred first, so that a missing
one reads as the mean. Nothing is blown up more than twentyfold: a pixel that is almost always blank must not weigh as
much as one that tells classes apart. Columns are never dropped or moved: a model that resumes appends new ones, and old
weights keep their meaning.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from decision.batch import Features, Floats, Ints
from decision.errors import FieldError
from decision.ragged import ragged_offsets

MAX_COLUMNS = 4_096
_COMMON = 0.5
_SMALLEST = 0.05


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
        known = set(self.names)
        numbers: dict[str, list[float]] = {}
        for features in rows:
            for name, value in features.items():
                if name not in known:
                    numbers.setdefault(name, []).append(value)
        room = MAX_COLUMNS - len(self)
        if len(numbers) > room:
            numbers = dict(sorted(numbers.items(), key=lambda entry: (-len(entry[1]), entry[0]))[:room])
        names, shift, scale = list(self.names), list(self.shift), list(self.scale)
        for name, values in numbers.items():
            offset, divisor = _shift_and_scale(np.array(values), len(rows))
            names.append(name)
            shift.append(offset)
            scale.append(divisor)
        return ColumnSet(names, shift, scale)

    def positions(self) -> dict[str, int]:
        """Return the position of every name."""
        return {name: position for position, name in enumerate(self.names)}


def entries_of(rows: Sequence[Features], columns: dict[str, int], shift: Floats, scale: Floats) -> Entries:
    """Return the scaled entries of `rows`; features without a column are ignored.

    Args:
        rows: [r] features.
        columns: position by name.
        shift: [c].
        scale: [c].
    """
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


def _shift_and_scale(values: Floats, rows: int) -> tuple[float, float]:
    """Return the shift and the scale of a column from the values that are present in `rows` rows."""
    if bool(np.isin(values, (0.0, 1.0)).all()):
        return 0.0, 1.0
    mean, spread = float(values.mean()), float(values.std())
    if values.size > _COMMON * rows and abs(mean) > max(spread, 1.0):
        return mean, max(spread, 1.0)
    return 0.0, max(float(np.sqrt(np.mean(values**2))), _SMALLEST)
