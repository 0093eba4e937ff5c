"""Which events one log partition has shown before: a compact memory of 64-bit hashes, by the progress of the log.

It may take a new event for an old one (two hashes that collide), never an old one for a new one, so a hit must be
looked up in the table. Eight bytes per event: a day at 1,000 decisions per second is 700 MB, over all partitions.

How old an event is says the log and no clock: time passes from message to message, by at most an hour, and never
backwards. A clock that is set ahead by days ages what is remembered by an hour, one that is set back ages nothing. The
price is memory: a quiet spell counts for an hour, however long it was, so of a log that is mostly quiet more than the
horizon is kept, at most what came between as many spells as the horizon has hours.
"""

from __future__ import annotations

import numpy as np

from decision.batch import Ints

LONGEST_GAP_MS = 3_600_000
_SLICES = 8


def progress(arrived_ms: Ints, latest_ms: int) -> tuple[Ints, int]:
    """Return [n] how far a log got with each message, in milliseconds, and the latest time by the clock in force.

    Args:
        arrived_ms: [n] when messages arrived, in the order of the log. Clocks of brokers and processes differ: a time
            that is up to `LONGEST_GAP_MS` before the latest one is no step back.
        latest_ms: the latest time before them.
    """
    latest = np.maximum.accumulate(np.append(latest_ms, arrived_ms))
    if (arrived_ms >= latest[:-1] - LONGEST_GAP_MS).all():
        return np.cumsum(np.minimum(np.diff(latest), LONGEST_GAP_MS)), int(latest[-1])
    got, gone = np.empty(len(arrived_ms), np.int64), 0
    for row, at in enumerate(arrived_ms.tolist()):
        if at > latest_ms:
            gone += min(at - latest_ms, LONGEST_GAP_MS)
        if not latest_ms - LONGEST_GAP_MS <= at <= latest_ms:
            latest_ms = at
        got[row] = gone
    return got, latest_ms


class Seen:
    """Hashes of the events of the last `horizon_ms` of a log partition, in sorted runs by slices of its progress.

    Args:
        horizon_ms: how long after an event a repetition is recognised, in milliseconds of the log's progress.
    """

    def __init__(self, horizon_ms: int) -> None:
        self._horizon = horizon_ms
        self._width = max(1, horizon_ms // _SLICES)
        self._runs: dict[int, list[Ints]] = {}  # slice -> runs, each less than half as long as the one before
        self._since: dict[int, int] = {}  # slice -> its first offset, both ascending
        self._progress = 0
        self._latest_ms: int | None = None

    def __len__(self) -> int:
        return sum(len(run) for runs in self._runs.values() for run in runs)

    @property
    def first(self) -> int | None:
        """Offset from which on events are remembered."""
        return next(iter(self._since.values()), None)

    def advance(self, offsets: Ints, arrived_ms: Ints) -> None:
        """Note the offsets and times of further messages ([n], in the order of the log); forget what is too old."""
        if len(offsets) == 0:
            return
        latest_ms = int(arrived_ms[0]) if self._latest_ms is None else self._latest_ms
        got, self._latest_ms = progress(arrived_ms, latest_ms)
        slices, at = np.unique((self._progress + got) // self._width, return_index=True)
        for slice_, row in zip(slices.tolist(), at.tolist(), strict=True):
            self._since.setdefault(slice_, int(offsets[row]))
        self._progress += int(got[-1])
        for slice_ in [s for s in self._since if (s + 1) * self._width < self._progress - self._horizon]:
            del self._since[slice_]
            self._runs.pop(slice_, None)

    def add(self, hashes: Ints, offsets: Ints) -> None:
        """Remember `hashes` ([n] int64) of events at `offsets` ([n], any order), which were noted by `advance`."""
        numbers = list(self._since)
        place = np.searchsorted(np.array(list(self._since.values()), np.int64), offsets, side="right") - 1
        for at in np.unique(place[place >= 0]).tolist():
            runs, run = self._runs.setdefault(numbers[at], []), np.sort(hashes[place == at])
            while runs and len(runs[-1]) < 2 * len(run):
                run = np.sort(np.concatenate((runs.pop(), run)), kind="stable")
            runs.append(run)

    def hits(self, hashes: Ints) -> Ints:
        """Return the positions in `hashes` ([n] int64) that were added before, or that repeat one in `hashes` itself.

        Of several equal hashes the first position is a hit only when it was added before.
        """
        order = np.argsort(hashes, kind="stable")
        wanted = hashes[order]
        hit = np.zeros(len(wanted), dtype=np.bool_)
        hit[1:] = wanted[1:] == wanted[:-1]
        for runs in self._runs.values():
            for run in runs:
                at = np.searchsorted(run, wanted)
                at[at == len(run)] = len(run) - 1
                hit |= run[at] == wanted
        return np.sort(order[hit]).astype(np.int64)
