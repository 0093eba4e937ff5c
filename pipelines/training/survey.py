"""What is known of a loop's settled rows before any is read whole: when they were decided, and how many there are.

Two scans of a few columns, in memory that does not grow with the rows: time is cut into moments, and rows are counted
by moment and by day.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute

from decision.batch import Floats, Ints
from decision.generations import NEGLIGIBLE, ages, sampling_rates
from pipelines.settings import LoopSettings, TrainingSettings

pc: Any = pyarrow.compute  # its functions are made when it is imported; type checkers do not see them

IMPORTED = "imported"
"""Reward definition of rows that came with their reward: they count under every definition."""
DAY = 86_400_000_000
"""Microseconds."""
_MOMENTS = 1 << 20

Scan = Callable[[tuple[str, ...], int | None], Iterator[pa.Table]]
"""Yields columns of the settled rows from a time on, in microseconds, or of all, in any order."""


class Slice(NamedTuple):
    """Rows with since <= ts < until, in microseconds, the first `skip` of them left out; None for no end."""

    since: int
    until: int | None
    skip: int = 0


class Survey(NamedTuple):
    """Counts of the settled rows of a window.

    Attributes:
        begins: [k] int64 microseconds, ascending: where moments begin that have rows.
        counts: [k] int64 how many each has.
        skip: rows at the first microsecond that are left out.
        first_day: days from 1970 to the first one, UTC.
        days: [d, 2] int64 rows under the loop's reward definition by day: those after which nothing happened, and the
            rewarded.
    """

    begins: Ints
    counts: Ints
    skip: int
    first_day: int
    days: Ints

    @property
    def rows(self) -> int:
        """How many settled rows the window has, whatever their reward definition."""
        return int(self.counts.sum()) - self.skip

    def slices(self, size: int) -> list[Slice]:
        """Return slices of about `size` rows, more where a moment has more."""
        before = np.cumsum(self.counts) - self.counts
        _, place = np.unique(before // size, return_index=True)
        begins: list[int] = self.begins[place].tolist()
        skips = [self.skip, *[0] * len(begins)]
        return [Slice(*cut) for cut in zip(begins, [*begins[1:], None], skips, strict=False)]

    def rates(self, training: TrainingSettings, ends: Ints) -> Floats:
        """Return [d, 2] the shares of the rows of each day, as in `days`, that are learned from.

        Args:
            training: how many rows are asked for, and how they fade.
            ends: [g] int64 ascending, microseconds: where generations end, about.
        """
        total, share = np.concatenate(([0], np.cumsum(self.counts))), 1.0 - training.holdout
        noon = (self.first_day + np.arange(len(self.days))) * DAY + DAY // 2
        seen = total[np.searchsorted(self.begins, ends, side="right")].tolist()
        middle = total[np.searchsorted(self.begins, noon)]
        age = ages(seen, self.rows, minimum=round(training.generation_rows / share), of=middle)
        fading = max([training.decay, *[v.decay for v in training.variants if v.decay is not None]])
        weight = np.maximum(fading**age, NEGLIGIBLE)
        return np.stack([sampling_rates(share * rows, weight, training.sample) for rows in self.days.T], axis=1)


def survey(scan: Scan, loop: LoopSettings) -> Survey:
    """Return the counts of the loop's window: its latest days, or its latest rows."""
    least, most = None, 0
    for part in scan(("ts",), None):
        if len(part):
            at = times_of(part)
            least = int(at.min()) if least is None else min(least, int(at.min()))
            most = max(most, int(at.max()))
    if least is None:
        return Survey(np.zeros(0, np.int64), np.zeros(0, np.int64), 0, 0, np.zeros((0, 2), np.int64))
    training = loop.training
    if training.window is None and training.days:
        return _counted(scan, loop, max(least, most - round(training.days * DAY) + 1), most)
    found = _counted(scan, loop, least, most)
    if not training.window or found.rows <= training.window:
        return found
    later = np.cumsum(found.counts[::-1])[::-1]
    near = int(found.begins[np.flatnonzero(later >= training.window)[-1]])
    latest = np.sort(np.concatenate([times_of(part) for part in scan(("ts",), near)]))
    start = latest.size - training.window
    skip = start - int(np.searchsorted(latest, latest[start]))
    return _counted(scan, loop, int(latest[start]), most)._replace(skip=skip)


def _counted(scan: Scan, loop: LoopSettings, since: int, most: int) -> Survey:
    width = (most - since) // _MOMENTS + 1
    counts = np.zeros((most - since) // width + 1, np.int64)
    first_day = since // DAY
    days = np.zeros(2 * (most // DAY - first_day + 1), np.int64)
    for part in scan(("ts", "reward", "reward_version"), since):
        at = times_of(part)
        counts += np.bincount((at - since) // width, minlength=counts.size)
        own = is_own(part, loop)
        days += np.bincount((2 * (at // DAY - first_day) + is_rewarded(part, loop))[own], minlength=days.size)
    some = np.flatnonzero(counts)
    return Survey(since + some * width, counts[some], 0, first_day, days.reshape(-1, 2))


def times_of(table: pa.Table) -> Ints:
    """Return [n] int64 microseconds of the column of times."""
    return pc.cast(pc.cast(table["ts"], pa.timestamp("us", "UTC")), pa.int64()).to_numpy()


def is_own(table: pa.Table, loop: LoopSettings) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Return [n] which rows carry the loop's reward definition."""
    versions = pa.array([loop.reward.version, IMPORTED])
    return pc.is_in(table["reward_version"], value_set=versions).to_numpy()


def is_rewarded(table: pa.Table, loop: LoopSettings) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Return [n] whose reward is not that of a decision after which nothing happened."""
    return table["reward"].to_numpy() != loop.reward.default
