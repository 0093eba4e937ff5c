"""Who does the parts of a replay: this process, some units at once, or a Ray cluster; the results are the same."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import reduce
from typing import Protocol, TypeVar

from pipelines.replay.passes import Job

Part = TypeVar("Part")

MOST_THREADS = 4


class Engine(Protocol):
    """Does a step of a replay on every unit of a log, or of whatever else it has numbered."""

    def total(
        self,
        step: Callable[[Job, int], Part],
        merge: Callable[[Part, Part], Part],
        job: Job,
        seen: Callable[[Part], None] | None = None,
        units: Sequence[int] | None = None,
    ) -> Part | None:
        """Return what `merge` makes of the step's results of all units, in any order; None without units.

        Args:
            step: done on every unit, at the same time on some of them.
            merge: puts two results together.
            job: what is done.
            seen: told here of every result, of one unit or of several, as it arrives.
            units: numbers that the step knows; None for the units of the log.
        """
        ...


def total_of(
    step: Callable[[Job, int], Part], merge: Callable[[Part, Part], Part], job: Job, units: Sequence[int]
) -> Part | None:
    """Return what `merge` makes of the step's results of `units`; None without any."""
    return _merged((step(job, unit) for unit in units), merge)


class LocalEngine:
    """This process, some units at once: what is held is a batch of rows of each and the sums.

    Args:
        workers: threads; None for one per core, at most 4. Reading and arithmetic on arrays leave the interpreter free
            for the others.
    """

    def __init__(self, workers: int | None = None) -> None:
        self.workers = workers or min(_cores(), MOST_THREADS)

    def total(
        self,
        step: Callable[[Job, int], Part],
        merge: Callable[[Part, Part], Part],
        job: Job,
        seen: Callable[[Part], None] | None = None,
        units: Sequence[int] | None = None,
    ) -> Part | None:
        """Return the merged result of all units."""
        return _merged(_told(self._parts(step, job, job.source.units() if units is None else units), seen), merge)

    def _parts(self, step: Callable[[Job, int], Part], job: Job, units: Sequence[int]) -> Iterator[Part]:
        """Yield the results in the units' order."""
        if min(self.workers, len(units)) < 2:
            yield from (step(job, unit) for unit in units)
            return
        with ThreadPoolExecutor(self.workers) as pool:
            running: deque[Future[Part]] = deque()
            try:
                for unit in units:
                    running.append(pool.submit(step, job, unit))
                    if len(running) > self.workers:
                        yield running.popleft().result()
                while running:
                    yield running.popleft().result()
            finally:
                for future in running:
                    future.cancel()


def open_engine(*, address: str | None, workers: int | None) -> LocalEngine:
    """Return this process; an address is a cluster's."""
    return LocalEngine(workers)


def _merged(parts: Iterator[Part], merge: Callable[[Part, Part], Part]) -> Part | None:
    for first in parts:
        return reduce(merge, parts, first)
    return None


def _told(parts: Iterator[Part], seen: Callable[[Part], None] | None) -> Iterator[Part]:
    for part in parts:
        if seen is not None:
            seen(part)
        yield part


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
