"""Sums of floating-point numbers without any rounding, so that shards merge to the same bits in any order.

A block is cut into multiples of a unit that is so coarse that adding them up cannot round (Rump, Ogita and Oishi 2008,
"Accurate floating-point summation", error-free extraction); what is left over is cut again with a finer unit until
nothing is left. The pieces are added as integers. A sum is kept as its expansion: its value rounded to a double, the
rest rounded, and so on (Shewchuk 1997), which is unique, exact, and prints as plain numbers.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decision.batch import Floats, Ints
from decision.errors import FieldError

Exact = tuple[float, ...]
"""An exact number: doubles of falling size that add up to it; empty for 0."""

MAX_MAGNITUDE = 1e150
_BLOCK = 8_192
_SHIFT = 1_074  # 2^-1074 is the smallest double: every one is a whole multiple of it


def exact_sum(terms: Floats) -> Exact:
    """Return the sum of [n] terms; see `exact_sums`."""
    return exact_sums(terms[None, :])[0]


def exact_sums(columns: Floats) -> list[Exact]:
    """Return the k sums of [k, n] finite terms.

    Raises:
        FieldError: a term is not finite or beyond 1e150 in size.
    """
    k, n = columns.shape
    totals = [0] * k
    pieces, rest, ones = np.empty((k, _BLOCK)), np.empty((k, _BLOCK)), np.ones(_BLOCK)
    for start in range(0, n, _BLOCK):
        x = columns[:, start : start + _BLOCK]
        size = x.shape[1]
        q, left = pieces[:, :size], rest[:, :size]
        np.abs(x, out=q)
        exponent = _exponents(q.max(1))
        bits = math.ceil(math.log2(max(size, 2))) + 1
        while True:
            _cut(x, np.ldexp(1.5, exponent + bits)[:, None], q, left)
            for j, total in enumerate((q @ ones[:size]).tolist()):
                if total:
                    totals[j] += _whole(total)
            x = left
            if not x.any():
                break
            exponent = exponent + bits - 52
    return [expansion(total) for total in totals]


def exact_group_sums(columns: Floats, group: Ints, groups: int) -> NDArray[np.object_]:
    """Return [k, groups] exact sums of [k, n] terms by group, as whole multiples of 2^-1074 (Python integers).

    Args:
        columns: finite terms.
        group: [n] in 0..groups-1.
        groups: number of groups.

    Raises:
        FieldError: a term is not finite or beyond 1e150 in size.
    """
    k, n = columns.shape
    totals: NDArray[np.object_] = np.zeros((k, groups), dtype=object)
    if not n:
        return totals
    bits = math.ceil(math.log2(max(n, 2))) + 1
    q, left = np.empty(n), np.empty(n)
    for j in range(k):
        x: Floats = columns[j]
        exponent = int(_exponents(np.abs(x).max(keepdims=True))[0])
        while True:
            _cut(x, np.ldexp(1.5, exponent + bits), q, left)
            sums = np.bincount(group, weights=q, minlength=groups).astype(np.float64)
            totals[j] += _wholes(sums, exponent + bits - 52)
            x = left
            if not x.any():
                break
            exponent += bits - 52
    return totals


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


def _wholes(sums: Floats, unit: int) -> NDArray[np.object_]:
    """Return [g] multiples of 2^-1074 that equal [g] sums, which are less than 2^53 multiples of 2^unit."""
    counts: NDArray[np.object_] = np.ldexp(sums, -unit).astype(np.int64).astype(object)
    shift = unit + _SHIFT
    # Below the smallest double there is nothing to lose.
    out: Any = np.left_shift(counts, shift) if shift >= 0 else np.right_shift(counts, -shift)
    return out


def _cut(x: Any, coarse: Any, q: Any, left: Any) -> None:
    # Adding and subtracting `coarse` rounds x to a multiple of the unit in its last place; the rest is exact.
    np.add(x, coarse, out=q)
    np.subtract(q, coarse, out=q)
    np.subtract(x, q, out=left)


def _exponents(largest: Floats) -> NDArray[np.int32]:
    if not float(largest.max()) <= MAX_MAGNITUDE:
        raise FieldError("terms", wanted=f"finite numbers up to {MAX_MAGNITUDE}", got=float(largest.max()))
    return np.frexp(largest)[1].astype(np.int32)
