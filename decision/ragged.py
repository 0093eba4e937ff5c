"""Arithmetic on ragged groups: flat arrays cut by offsets, no loop over groups."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_START = np.zeros(1, np.int64)


def sizes(offsets: Ints) -> Ints:
    """Return [n] group sizes of `offsets` ([n + 1])."""
    return np.diff(offsets)


def ragged_offsets(sizes: Ints) -> Ints:
    """Return [n + 1] int64 offsets of groups of `sizes` ([n])."""
    return np.concatenate((np.zeros(1, np.int64), np.cumsum(sizes, dtype=np.int64)))


def ragged_rows(starts: Ints, offsets: Ints) -> Ints:
    """Return the flat rows of groups that begin at `starts` ([n]) and have the sizes of `offsets` ([n + 1])."""
    rows: Ints = np.repeat(starts - offsets[:-1], np.diff(offsets)) + np.arange(int(offsets[-1]), dtype=np.int64)
    return rows


def spread(per_group: Floats, offsets: Ints) -> Floats:
    """Return [m] each group's value ([n]) repeated for its members."""
    if offsets.size == 2:  # one decision, as on the request path
        return np.full(int(offsets[1]), per_group[0])
    return np.repeat(per_group, np.diff(offsets))


def group_sum(values: Floats, offsets: Ints) -> Floats:
    """Return [n] sums of `values` ([m]) per group."""
    return np.add.reduceat(values, offsets[:-1])


def sum_of(values: list[float]) -> float:
    """Return the sum of one group's `values`, bit for bit as `group_sum` adds them."""
    return float(np.add.reduceat(values, _START)[0]) if values else 0.0


def sums_by_owner(owner: Ints, values: Floats, count: int) -> Floats:
    """Return [n, count] sums of each row of `values` ([n, e]) by `owner` ([e], in [0, count)), in the order of e."""
    n = len(values)
    if n == 1:
        return np.asarray(np.bincount(owner, weights=values[0], minlength=count)[None, :], dtype=np.float64)
    owners = np.arange(n)[:, None] * count + owner
    sums = np.bincount(owners.ravel(), weights=values.ravel(), minlength=n * count)
    return np.asarray(sums.reshape(n, count), dtype=np.float64)


def group_max(values: Floats, offsets: Ints) -> Floats:
    """Return [n] largest of `values` ([m]) per group."""
    return np.maximum.reduceat(values, offsets[:-1])


def group_min(values: Floats, offsets: Ints) -> Floats:
    """Return [n] smallest of `values` ([m]) per group."""
    return np.minimum.reduceat(values, offsets[:-1])


def group_argmax(values: Floats, offsets: Ints) -> Ints:
    """Return [n] flat rows of each group's first largest value."""
    best = values >= spread(group_max(values, offsets), offsets)
    rows = np.flatnonzero(best)
    groups = np.searchsorted(offsets, rows, side="right") - 1
    _, first = np.unique(groups, return_index=True)
    return rows[first].astype(np.int64)


def normalise(weights: Floats, offsets: Ints) -> Floats:
    """Return [m] non-negative `weights` scaled to sum to 1 in each group."""
    return weights / spread(group_sum(weights, offsets), offsets)
