"""Sums of floating-point numbers without any rounding, so that shards merge to the same bits in any order.

A block is cut into multiples of a unit that is so coarse that adding them up cannot round (Rump, Ogita and Oishi 2008,
"Accurate floating-point summation", error-free extraction); what is left over is cut again with a finer unit until
nothing is left. The pieces are added as integers. A sum is kept as its expansion: its value rounded to a double, the
rest rounded, and so on (Shewchuk 1997), which is unique, exact, and prints as plain numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decision.batch import Floats, Ints
from decision.errors import FieldError

Exact = tuple[float, ...]
"""An exact number: doubles of falling size that add up to it; empty for 0."""

MAX_MAGNITUDE = 1e150
_BLOCK = 8_192  # so many doubles and what is cut of them stay in a core's cache
_SHIFT = 1_074  # 2^-1074 is the smallest double: every one is a whole multiple of it
_BITS = 32  # of a digit of `ExactArray`: sums of 2^31 of them fit into an int64
_LOWEST = 1_088  # the lowest digit counts multiples of 2^-1088: the first multiple of 32 beyond 1074
_MASK = (1 << _BITS) - 1


def exact_sum(terms: Floats) -> Exact:
    """Return the sum of [n] terms; see `exact_sums`."""
    return exact_sums([terms])[0]


def exact_sums(columns: Floats | Iterable[Floats]) -> list[Exact]:
    """Return the k sums of k columns of [n] finite terms.

    Raises:
        FieldError: a term is not finite or beyond 1e150 in size.
    """
    q, left = np.empty(_BLOCK), np.empty(_BLOCK)
    return [expansion(_whole_sum(column, q, left)) for column in columns]


def _whole_sum(column: Floats, q: Floats, left: Floats) -> int:
    total, n = 0, column.size
    largest = _largest(column)
    if not largest:
        return total
    bits = math.ceil(math.log2(max(min(n, _BLOCK), 2))) + 1
    top = math.frexp(largest)[1] + bits
    for start in range(0, n, _BLOCK):
        x = column[start : start + _BLOCK]
        size, exponent = x.size, top
        while True:
            _cut(x, math.ldexp(1.5, exponent), q[:size], left[:size])
            cut = float(q[:size].sum())
            if cut:
                total += _whole(cut)
            x = left[:size]
            if not x.any():
                break
            exponent += bits - 52
    return total


@dataclass(frozen=True, slots=True, eq=False)
class ExactArray:
    """Exact numbers in [k, g], as digits in arrays; `+` adds them, to the same numbers in any order.

    Attributes:
        shape: k and g.
        digits: {place: [k, g] int64}; those at place j count multiples of 2^(32 j - 1088). They are sums of numbers
            below 2^32 and are never carried.
    """

    shape: tuple[int, int]
    digits: dict[int, Ints] = field(default_factory=dict)

    @staticmethod
    def of(columns: Floats | Sequence[Floats], group: Ints, groups: int) -> ExactArray:
        """Return the sums of k columns of [n] terms by group; one that is given twice is summed once.

        Args:
            columns: finite terms.
            group: [n] in 0..groups-1.
            groups: number of groups.

        Raises:
            FieldError: a term is not finite or beyond 1e150 in size.
        """
        out = ExactArray((len(columns), groups))
        if not group.size:
            return out
        most = int(np.bincount(group, minlength=1).max())
        bits = math.ceil(math.log2(max(most, 2))) + 1
        q, left = np.empty(group.size), np.empty(group.size)
        done: dict[int, int] = {}
        for j, column in enumerate(list(columns)):  # held, so that no two of them share an identity
            before = done.setdefault(id(column), j)
            if before != j:
                for digit in out.digits.values():
                    digit[j] = digit[before]
                continue
            largest = _largest(column)
            x, exponent = column, math.frexp(largest)[1] + bits
            while largest and x.any():
                _cut(x, math.ldexp(1.5, exponent), q, left)
                sums = np.bincount(group, weights=q, minlength=groups)
                out._put(j, sums.astype(np.float64, copy=False), exponent - 52)
                x = left
                exponent += bits - 52
        return out

    def __add__(self, other: ExactArray) -> ExactArray:
        digits = dict(self.digits)
        for place, more in other.digits.items():
            digits[place] = digits[place] + more if place in digits else more
        return ExactArray(self.shape, digits)

    def rows(self, at: Sequence[int]) -> ExactArray:
        """Return the rows `at`, in that order."""
        return ExactArray((len(at), self.shape[1]), {place: digit[list(at)] for place, digit in self.digits.items()})

    def wholes(self) -> NDArray[np.object_]:
        """Return [k, g] Python integers: multiples of 2^-1074."""
        out: NDArray[np.object_] = np.zeros(self.shape, dtype=object)
        for place, digit in self.digits.items():
            out += digit.astype(object) << (_BITS * place)
        shifted: Any = out >> (_LOWEST - _SHIFT)
        return shifted

    def totals(self) -> list[int]:
        """Return the k sums over all groups, as multiples of 2^-1074."""
        out = [0] * self.shape[0]
        for place, digit in self.digits.items():
            # In halves, whose sums over any number of groups cannot overflow.
            high, low = (digit >> _BITS).sum(1).tolist(), (digit & _MASK).sum(1).tolist()
            for j, (upper, lower) in enumerate(zip(high, low, strict=True)):
                out[j] += ((upper << _BITS) + lower) << (_BITS * place)
        return [total >> (_LOWEST - _SHIFT) for total in out]

    def _put(self, j: int, sums: Floats, unit: int) -> None:
        """Add [g] sums, which are less than 2^53 multiples of 2^unit, to row `j`."""
        counts = np.ldexp(sums, -unit).astype(np.int64)
        place, shift = divmod(unit + _LOWEST, _BITS)
        if place < 0:  # below the smallest double there is nothing to lose
            counts, place, shift = counts >> -(unit + _LOWEST), 0, 0
        rest = counts >> (_BITS - shift)
        for digit in ((counts << shift) & _MASK, rest & _MASK, rest >> _BITS):
            if place not in self.digits:
                self.digits[place] = np.zeros(self.shape, np.int64)
            self.digits[place][j] += digit
            place += 1


def exact_group_sums(columns: Floats | Sequence[Floats], group: Ints, groups: int) -> NDArray[np.object_]:
    """Return [k, groups] exact sums of k columns of [n] terms by group, as multiples of 2^-1074 (Python integers).

    Args:
        columns: finite terms.
        group: [n] in 0..groups-1.
        groups: number of groups.

    Raises:
        FieldError: a term is not finite or beyond 1e150 in size.
    """
    return ExactArray.of(columns, group, groups).wholes()


def expansion(whole: int) -> Exact:
    """Return the exact number that is `whole` multiples of 2^-1074."""
    parts: list[float] = []
    while whole:
        part = whole / (1 << _SHIFT)  # true division of integers rounds once, correctly
        parts.append(part)
        whole -= _whole(part)
    return tuple(parts)


def added(a: Exact, b: Exact) -> Exact:
    """Return the exact sum of two exact numbers."""
    return expansion(sum(_whole(part) for part in (*a, *b)))


def rounded(a: Exact) -> float:
    """Return the double nearest to an exact number."""
    return a[0] if a else 0.0


def rounded_all(wholes: NDArray[np.object_]) -> Floats:
    """Return the doubles nearest to multiples of 2^-1074, of any shape."""
    flat = [whole / (1 << _SHIFT) for whole in wholes.ravel()]
    return np.array(flat, dtype=np.float64).reshape(wholes.shape)


def _whole(part: float) -> int:
    numerator, denominator = part.as_integer_ratio()
    return numerator << (_SHIFT + 1 - denominator.bit_length())


def _cut(x: Floats, coarse: float, q: Floats, left: Floats) -> None:
    # Adding and subtracting `coarse` rounds x to a multiple of the unit in its last place; the rest is exact.
    np.add(x, coarse, out=q)
    np.subtract(q, coarse, out=q)
    np.subtract(x, q, out=left)


def _largest(x: Floats) -> float:
    """Return the largest size of [n] numbers; 0 without any."""
    if not x.size:
        return 0.0
    largest = max(float(x.max()), -float(x.min()))
    if not largest <= MAX_MAGNITUDE:
        raise FieldError("terms", wanted=f"finite numbers up to {MAX_MAGNITUDE}", got=largest)
    return largest
