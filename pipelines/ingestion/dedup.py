"""Which events one log partition has shown before: a compact memory of 64-bit hashes, by time of arrival.

It may take a new event for an old one (two hashes that collide), never an old one for a new one, so a hit must be
looked up in the table. Eight bytes per event: a day at 1,000 decisions per second is 700 MB, over all partitions.
"""

from __future__ import annotations

import numpy as np

from decision.batch import Ints

_SLICES = 8


class Seen:
    """Hashes of the events of the last `horizon_ms`, in sorted runs by slices of time.

    Args:
        horizon_ms: how long after an event a repetition is recognised, in milliseconds.
    """

    def __init__(self, horizon_ms: int) -> None:
        self._horizon = horizon_ms
        self._width = max(1, horizon_ms // _SLICES)
        self._runs: dict[int, list[Ints]] = {}  # slice of time -> runs, each less than half as long as the one before
        self._newest = 0

    def __len__(self) -> int:
        return sum(len(run) for runs in self._runs.values() for run in runs)

    def add(self, hashes: Ints, at_ms: int) -> None:
        """Remember `hashes` ([n] int64) of events that arrived up to `at_ms`, and forget what is past the horizon."""
        if len(hashes) == 0:
            return
        runs = self._runs.setdefault(at_ms // self._width, [])
        run = np.sort(hashes)
        while runs and len(runs[-1]) < 2 * len(run):
            run = np.sort(np.concatenate((runs.pop(), run)), kind="stable")
        runs.append(run)
        self._newest = max(self._newest, at_ms)
        for slice_ in [s for s in self._runs if (s + 1) * self._width < self._newest - self._horizon]:
            del self._runs[slice_]

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
