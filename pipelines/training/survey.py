"""What is known of a loop's settled rows before any is read whole: when they were decided, and how many there are.

Two scans of a few columns, each a pass over the log's partitions, in memory that does not grow with the rows: time is
cut into moments, and rows are counted by moment and by day.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from decision.batch import Floats, Ints
from decision.generations import NEGLIGIBLE, ages, sampling_rates
from pipelines.engines.engine import Engine, each_of
from pipelines.settings import TrainingSettings
from pipelines.training.settled import Settled, is_own, is_rewarded, times_of

DAY = 86_400_000_000
"""Microseconds."""
_MOMENTS = 1 << 20


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


def survey(settled: Settled, engine: Engine) -> Survey:
    """Return the counts of the loop's window: its latest days, or its latest rows; `engine` does the passes."""
    ends = [end for end in each_of(engine, _ends, settled, settled.partitions) if end is not None]
    if not ends:
        return Survey(np.zeros(0, np.int64), np.zeros(0, np.int64), 0, 0, np.zeros((0, 2), np.int64))
    least, most = min(first for first, _ in ends), max(last for _, last in ends)
    training = settled.loop.training
    if training.window is None and training.days:
        return _counted(settled, engine, max(least, most - round(training.days * DAY) + 1), most)
    found = _counted(settled, engine, least, most)
    if not training.window or found.rows <= training.window:
        return found
    later = np.cumsum(found.counts[::-1])[::-1]
    near = int(found.begins[np.flatnonzero(later >= training.window)[-1]])
    latest = np.sort(np.concatenate(each_of(engine, _times, _Span(settled, near, most), settled.partitions)))
    start = latest.size - training.window
    skip = start - int(np.searchsorted(latest, latest[start]))
    return _counted(settled, engine, int(latest[start]), most)._replace(skip=skip)


class _Span(NamedTuple):
    """Rows from `since` to `most`, in microseconds, as they are sent to whoever reads a partition of them."""

    settled: Settled
    since: int
    most: int

    @property
    def width(self) -> int:
        """Microseconds of a moment."""
        return (self.most - self.since) // _MOMENTS + 1


def _ends(settled: Settled, partition: int) -> tuple[int, int] | None:
    times = [times_of(part) for part in settled.scan(("ts",), partition=partition) if len(part)]
    return (min(int(at.min()) for at in times), max(int(at.max()) for at in times)) if times else None


def _times(span: _Span, partition: int) -> Ints:
    parts = span.settled.scan(("ts",), span.since, partition=partition)
    return np.concatenate([np.zeros(0, np.int64), *(times_of(part) for part in parts)])


def _counts(span: _Span, partition: int) -> tuple[Ints, Ints]:
    """Return the rows of a partition by moment, and by day as `Survey.days`."""
    since, most, loop = span.since, span.most, span.settled.loop
    counts = np.zeros((most - since) // span.width + 1, np.int64)
    first_day = since // DAY
    days = np.zeros(2 * (most // DAY - first_day + 1), np.int64)
    for part in span.settled.scan(("ts", "reward", "reward_version"), since, partition=partition):
        at = times_of(part)
        counts += np.bincount((at - since) // span.width, minlength=counts.size)
        day = 2 * (at // DAY - first_day) + is_rewarded(part, loop)
        days += np.bincount(day[is_own(part, loop)], minlength=days.size)
    return counts, days.reshape(-1, 2)


def _added(one: tuple[Ints, Ints], other: tuple[Ints, Ints]) -> tuple[Ints, Ints]:
    return one[0] + other[0], one[1] + other[1]


def _counted(settled: Settled, engine: Engine, since: int, most: int) -> Survey:
    span = _Span(settled, since, most)
    found = engine.total(_counts, _added, span, settled.partitions)
    assert found is not None  # noqa: S101 - there are rows
    counts, days = found
    some = np.flatnonzero(counts)
    return Survey(since + some * span.width, counts[some], 0, since // DAY, days)
