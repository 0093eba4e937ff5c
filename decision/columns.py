"""Features of many rows as columns: names held once, values in flat arrays, equal rows held once.

A dictionary per row exists only at the border: whoever reads one row gets one. Everything that computes over many rows
reads the arrays.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import cast, overload

import numpy as np
from numpy.typing import NDArray

from decision.errors import FieldError
from decision.ragged import Floats, Ints, ragged_offsets, ragged_rows

Codes = NDArray[np.int32]
Features = dict[str, float]
"""Flattened features: name -> finite number. Categories are ``name=value`` -> 1."""


class FeatureRows(Sequence[Features]):
    """r rows of flattened features, as d distinct rows and which of them each row is.

    Attributes:
        names: [c] names of features; each stands once.
        name: [e] int32 which name an entry has, distinct row after distinct row.
        value: [e] its number.
        offsets: [d + 1] int64 where each distinct row's entries begin.
        rows: [r] int64 which distinct row each row is.

    Raises:
        FieldError: the arrays do not fit together.
    """

    __slots__ = ("name", "names", "offsets", "rows", "value")

    def __init__(self, names: list[str], name: Codes, value: Floats, offsets: Ints, rows: Ints) -> None:
        if offsets.ndim != 1 or offsets.size < 1 or offsets[0] != 0 or offsets[-1] != name.size:
            raise FieldError("offsets", wanted=f"offsets from 0 to {name.size}", got=offsets)
        if value.shape != name.shape:
            raise FieldError("value", wanted=f"{name.size} numbers", got=value.shape)
        if rows.size and (int(rows.min()) < 0 or int(rows.max()) >= offsets.size - 1):
            raise FieldError("rows", wanted=f"distinct rows below {offsets.size - 1}", got=rows)
        self.names, self.name, self.value, self.offsets, self.rows = names, name, value, offsets, rows

    @classmethod
    def of(cls, rows: Sequence[Features]) -> FeatureRows:
        """Return `rows` ([r]) as columns: entries in the dictionaries' order, names in order of appearance.

        A dictionary that stands in several places is held once; `interned` also joins equal ones.
        """
        if isinstance(rows, FeatureRows):
            return rows
        places: dict[int, int] = {}
        index: list[int] = []
        distinct: list[Features] = []
        for row in rows:
            place = places.get(id(row))
            if place is None:
                place = places[id(row)] = len(distinct)
                distinct.append(row)
            index.append(place)
        known: dict[str, int] = {}
        name = [known.setdefault(key, len(known)) for row in distinct for key in row]
        value = [number for row in distinct for number in row.values()]
        return cls(
            list(known),
            np.array(name, dtype=np.int32),
            np.array(value, dtype=np.float64),
            ragged_offsets(np.array([len(row) for row in distinct], dtype=np.int64)),
            np.array(index, dtype=np.int64),
        )

    @classmethod
    def empty(cls, rows: int) -> FeatureRows:
        """Return `rows` rows without features."""
        none = np.zeros(0)
        return cls([], none.astype(np.int32), none, np.zeros(2, np.int64), np.zeros(rows, np.int64))

    @property
    def distinct(self) -> int:
        """How many distinct rows are held."""
        return self.offsets.size - 1

    def __len__(self) -> int:
        return self.rows.size

    @overload
    def __getitem__(self, index: int) -> Features: ...
    @overload
    def __getitem__(self, index: slice) -> FeatureRows: ...
    def __getitem__(self, index: int | slice) -> Features | FeatureRows:
        if isinstance(index, slice):
            return self._with(self.rows[index])
        row = int(self.rows[index])
        start, stop = int(self.offsets[row]), int(self.offsets[row + 1])
        names = self.names
        return {
            names[code]: number
            for code, number in zip(self.name[start:stop].tolist(), self.value[start:stop].tolist(), strict=True)
        }

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(cast("Sequence[Features]", other))

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    def take(self, index: Ints) -> FeatureRows:
        """Return the rows at `index` ([k] int64), in that order; they share what is held."""
        return self._with(self.rows[index])

    def entries(self) -> tuple[Codes, Floats, Ints]:
        """Return names, values and offsets ([r + 1]) of every row, equal rows written out."""
        rows = self.rows
        if rows.size and bool((rows == np.arange(rows[0], rows[0] + rows.size)).all()):  # held one after another
            offsets = self.offsets[rows[0] : rows[-1] + 2]
            start, stop = int(offsets[0]), int(offsets[-1])
            return self.name[start:stop], self.value[start:stop], offsets - start
        offsets = ragged_offsets(np.diff(self.offsets)[rows])
        flat = ragged_rows(self.offsets[self.rows], offsets)
        return self.name[flat], self.value[flat], offsets

    def interned(self) -> FeatureRows:
        """Return the same rows in the form that depends on them alone, however they were held.

        Equal rows are held once, unused ones not at all; distinct rows and names stand in order of appearance.
        """
        used, first = np.unique(self.rows, return_index=True)
        used = used[np.argsort(first, kind="stable")]
        offsets = ragged_offsets(np.diff(self.offsets)[used])
        flat = ragged_rows(self.offsets[used], offsets)
        name, value = self.name[flat], self.value[flat]
        codes, first = np.unique(name, return_index=True)
        codes = codes[np.argsort(first, kind="stable")]
        renamed = np.zeros(len(self.names), np.int32)
        renamed[codes] = np.arange(codes.size, dtype=np.int32)
        name = renamed[name]
        names = [self.names[code] for code in codes.tolist()]
        packed = np.empty(name.size, [("name", "<i4"), ("value", "<f8")])
        packed["name"], packed["value"] = name, value + 0.0  # -0.0 equals 0.0
        data, width = packed.tobytes(), packed.itemsize
        cuts: list[int] = (offsets * width).tolist()
        known: dict[bytes, int] = {}
        place = np.array([known.setdefault(data[a:b], len(known)) for a, b in pairwise(cuts)], dtype=np.int64)
        if len(known) < place.size:
            _, kept = np.unique(place, return_index=True)
            kept_offsets = ragged_offsets(np.diff(offsets)[kept])
            flat = ragged_rows(offsets[kept], kept_offsets)
            name, value, offsets = name[flat], value[flat], kept_offsets
        moved = np.zeros(self.distinct, np.int64)
        moved[used] = place
        return FeatureRows(names, name, value, offsets, moved[self.rows])

    def _with(self, rows: Ints) -> FeatureRows:
        new = object.__new__(FeatureRows)
        new.names, new.name, new.value, new.offsets, new.rows = self.names, self.name, self.value, self.offsets, rows
        return new


class Texts(Sequence[str]):
    """m texts, each distinct one held once.

    Attributes:
        names: [k] the distinct texts.
        code: [m] int32 or int64 which of them each is.
    """

    __slots__ = ("code", "names")

    def __init__(self, names: list[str], code: Codes | Ints) -> None:
        self.names, self.code = names, code

    @classmethod
    def of(cls, texts: Sequence[str]) -> Texts:
        """Return `texts` interned, in order of appearance."""
        if isinstance(texts, Texts):
            return texts
        known: dict[str, int] = {}
        code = np.array([known.setdefault(text, len(known)) for text in texts], dtype=np.int64)
        return cls(list(known), code)

    def __len__(self) -> int:
        return self.code.size

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Texts: ...
    def __getitem__(self, index: int | slice) -> str | Texts:
        if isinstance(index, slice):
            return Texts(self.names, self.code[index])
        return self.names[int(self.code[index])]

    def __iter__(self) -> Iterator[str]:
        names = self.names
        return iter([names[code] for code in self.code.tolist()])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(cast("Sequence[str]", other))

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    def take(self, index: Ints) -> Texts:
        """Return the texts at `index` ([k] int64), in that order."""
        return Texts(self.names, self.code[index])


def joined(parts: Iterable[Sequence[Features]]) -> FeatureRows:
    """Return the rows of all `parts`, one after another."""
    columns = [FeatureRows.of(part) for part in parts]
    known: dict[str, int] = {}
    name, rows, held = [np.zeros(0, np.int32)], [np.zeros(0, np.int64)], 0
    for each in columns:
        codes = np.array([known.setdefault(text, len(known)) for text in each.names], dtype=np.int32)
        name.append(codes[each.name])
        rows.append(each.rows + held)
        held += each.distinct
    sizes = [np.diff(each.offsets) for each in columns]
    return FeatureRows(
        list(known),
        np.concatenate(name),
        np.concatenate([np.zeros(0), *[each.value for each in columns]]),
        ragged_offsets(np.concatenate([np.zeros(0, np.int64), *sizes])),
        np.concatenate(rows),
    )
