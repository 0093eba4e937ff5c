"""Dense rows for models that need a matrix: a fixed, fitted list of columns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from decision.batch import Batch, Features, Floats, Ints

MAX_COLUMNS = 4_096


def columns_of(rows: Sequence[Features]) -> list[str]:
    """Return the names that occur in `rows`, sorted; the most frequent 4,096 when there are more."""
    counts: dict[str, int] = {}
    for row in rows:
        for name in row:
            counts[name] = counts.get(name, 0) + 1
    names = sorted(counts, key=lambda name: (-counts[name], name))[:MAX_COLUMNS]
    return sorted(names)


def dense(rows: Sequence[Features], columns: Sequence[str], *, missing: float = 0.0) -> Floats:
    """Return [r, c] values of `columns` in `rows`; `missing` where a row lacks one, unknown names ignored."""
    index = {name: position for position, name in enumerate(columns)}
    out = np.full((len(rows), len(columns)), missing)
    for r, row in enumerate(rows):
        for name, value in row.items():
            c = index.get(name)
            if c is not None:
                out[r, c] = value
    return out


def context_rows(batch: Batch) -> Ints:
    """Return [m] the decision of every offered action."""
    return np.repeat(np.arange(len(batch)), np.diff(batch.offsets))
