"""Times as other systems write them: text, timestamps, or numbers since 1970 in a unit that is told or certain.

A number of seconds read as microseconds is a time in 1970, and nothing later would notice. So numbers are read only
where one unit alone makes them times between 2001 and 2286; all others need the unit. A file has one unit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute

from decision.errors import FieldError
from decision.records import FIRST_US, LAST_US
from pipelines.lake.schemas import TIME

pc: Any = pyarrow.compute  # its functions are made when it is imported; type checkers do not see them

Unit = Literal["s", "ms", "us", "ns"]
_US: dict[Unit, float] = {"s": 1e6, "ms": 1e3, "us": 1.0, "ns": 1e-3}
"""Microseconds in each unit."""
_CERTAIN_US = (1e15, 1e16)
"""From 2001-09-09 to 2286-11-20; ten times less, or more, is certain in no other unit."""
_NUMBER = r"^[+-]?\d+(\.\d*)?([eE][+-]?\d+)?$"
_EXACT = r"^\d{1,18}$|^[0-8]\d{18}$"
_OFFSET = r"([zZ]|[+-]\d\d:?(\d\d)?)$"
_WANTED = "a time: RFC 3339 (2026-08-03T07:00:00Z), or a number since 1970"


class Clock:
    """Reads the times of one file; the first number says which unit all are in, unless it is told.

    Attributes:
        unit: of numbers; None until it is known.
    """

    def __init__(self, unit: Unit | None = None) -> None:
        self.unit: Unit | None = unit
        self._told = unit is not None

    def read(self, column: pa.Array | pa.ChunkedArray, rows: Sequence[int], *, field: str = "ts") -> pa.Array:
        """Return the lake's times of a column; a null stays null. Without an offset, they are UTC.

        Args:
            column: [n] text, dates, timestamps or numbers.
            rows: [n] number of each row, for the message.
            field: what the column holds, for the message.

        Raises:
            FieldError: a value is no time, its unit is not certain, or it is not between 1970 and 2200.
        """
        values: pa.Array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        if pa.types.is_dictionary(values.type):
            values = values.cast(values.type.value_type)
        if pa.types.is_null(values.type):
            return pa.nulls(len(values), TIME)
        if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
            read = self._texts(values.cast(pa.string()), rows, field)
        elif pa.types.is_timestamp(values.type) or pa.types.is_date(values.type):
            zone = values.type.tz if pa.types.is_timestamp(values.type) else None
            read = values.cast(pa.timestamp("us", zone), safe=False).cast(TIME)
        elif pa.types.is_integer(values.type) or pa.types.is_floating(values.type):
            read = self._numbers(values, rows, field)
        else:
            raise FieldError(field, wanted=f"{_WANTED}, in a column of these", got=str(values.type))
        micros = read.cast(pa.int64()).fill_null(FIRST_US).to_numpy(zero_copy_only=False)
        self._refuse(~((micros >= FIRST_US) & (micros < LAST_US)), rows, field, values, "a time between 1970 and 2200")
        return read

    def _texts(self, texts: pa.Array, rows: Sequence[int], field: str) -> pa.Array:
        texts = pc.utf8_trim_whitespace(texts)
        numbers = pc.match_substring_regex(texts, _NUMBER)
        if pc.any(numbers).as_py():
            self._refuse(pc.invert(pc.fill_null(numbers, True)), rows, field, texts, "a number, as others of the file")
            # Numbers of nanoseconds have more digits than a float holds.
            exact = pc.all(pc.match_substring_regex(texts, _EXACT)).as_py()
            return self._numbers(texts.cast(pa.int64() if exact else pa.float64()), rows, field)
        zoned = pc.fill_null(pc.match_substring_regex(texts, r"\d[ T].*" + _OFFSET), True)
        out: Any = pa.nulls(len(texts), TIME)
        for with_offset in (True, False):
            these = zoned if with_offset else pc.invert(zoned)
            some = texts.filter(these)
            try:
                # Nanoseconds are cut off.
                found = some.cast(pa.timestamp("ns", "UTC" if with_offset else None)).cast(pa.int64())
            except pa.ArrowInvalid:
                self._refuse(np.array([not _is_time(text) for text in texts.to_pylist()]), rows, field, texts, _WANTED)
                raise
            out = pc.replace_with_mask(out, these, pc.divide(found, 1_000).cast(TIME))
        return out

    def _numbers(self, values: pa.Array, rows: Sequence[int], field: str) -> pa.Array:
        numbers = values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        there = ~np.isnan(numbers)
        if not there.any():
            return pa.nulls(len(values), TIME)
        if self.unit is None:
            first = numbers[there][0]
            for unit, us in _US.items():
                self.unit = unit if _CERTAIN_US[0] <= first * us < _CERTAIN_US[1] else self.unit
            wanted = "a number that is certain to be a time: say its unit by --time-unit s, ms, us or ns"
            self._refuse(there & np.full(len(values), self.unit is None), rows, field, values, wanted)
        unit: Unit = self.unit or "us"
        us = _US[unit]
        if not self._told:
            certain = (numbers * us >= _CERTAIN_US[0]) & (numbers * us < _CERTAIN_US[1])
            wanted = f"a time in {unit}, as the first of the file, or --time-unit given"
            self._refuse(there & ~certain, rows, field, values, wanted)
        with np.errstate(over="ignore", invalid="ignore"):
            outside = ~((numbers * us >= FIRST_US) & (numbers * us < LAST_US))
        self._refuse(there & outside, rows, field, values, f"a time in {unit} between 1970 and 2200")
        if pa.types.is_integer(values.type):
            whole = values.cast(pa.int64())
            exact = pc.divide(whole, 1_000) if unit == "ns" else pc.multiply(whole, int(us))
            return exact.cast(TIME)
        micros = np.where(there, np.round(numbers * us), 0).astype(np.int64)
        return pa.array(micros, pa.int64(), mask=~there).cast(TIME)

    def _refuse(self, bad: Any, rows: Sequence[int], field: str, values: pa.Array, wanted: str) -> None:
        at = np.flatnonzero(np.asarray(bad))
        if len(at):
            got = values[int(at[0])].as_py()
            raise FieldError(f"row {rows[int(at[0])]}: {field}", wanted=wanted, got=got)


def _is_time(text: str | None) -> bool:
    if text is None:
        return True
    for kind in (pa.timestamp("ns", "UTC"), pa.timestamp("ns")):
        try:
            pa.array([text]).cast(kind)
        except pa.ArrowInvalid:
            continue
        return True
    return False
