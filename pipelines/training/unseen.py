"""Rows of a file that are not learned from: they say how much noise the model leaves.

A loop's log has a holdout, see `pipelines.training.window`; a file that somebody brings has none.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from decision.batch import Batch, Floats, Interactions
from decision.exploration.sigma import MOST_ROWS, predicted_of_drawn

SHARE = 0.05
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # its multiples modulo 2^64 lie evenly (Knuth 1973, section 6.4)


def held_out(start: int, n: int) -> NDArray[np.bool_]:
    """Return [n] which rows of a file, from row `start` on, are held out: a share `SHARE` that lies evenly."""
    place = np.arange(start, start + n, dtype=np.uint64) * _GOLDEN
    return place < np.uint64(int(SHARE * 2**64))


class Newest:
    """The newest rows that were held out, `MOST_ROWS` or up to a chunk more."""

    def __init__(self) -> None:
        self._parts: deque[Interactions] = deque()
        self._rows = 0

    def add(self, rows: Interactions) -> None:
        """Add rows of a chunk."""
        self._parts.append(rows)
        self._rows += len(rows)
        while self._rows - len(self._parts[0]) >= MOST_ROWS:
            self._rows -= len(self._parts.popleft())

    def judged(self, predict: Callable[[Batch], Floats]) -> tuple[Floats, Floats, Floats]:
        """Return [u] rewards, what `predict` says of the drawn actions, and weights; a chunk was added at least."""
        columns = [(part.reward, predicted_of_drawn(predict, part), part.weights) for part in self._parts]
        reward, predicted, weight = (np.concatenate(column) for column in zip(*columns, strict=True))
        return reward, predicted, weight
