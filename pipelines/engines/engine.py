"""Who does the parts of a pass over a log: this process, some units at once, or a Ray cluster; the same comes out.

A pass is a step on every unit, a part of the log that is read by itself, and sums that are put together. Either the
sums are exact, so the order does not matter, or they are collected and put together in the order of the units.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial, reduce
from typing import Protocol, TypeVar

Job = TypeVar("Job")
Part = TypeVar("Part")

MOST_THREADS = 4


class Engine(Protocol):
    """Does a step on every unit of a job."""

    def total(
        self,
        step: Callable[[Job, int], Part],
        merge: Callable[[Part, Part], Part],
        job: Job,
        units: Sequence[int],
        seen: Callable[[Part], None] | None = None,
    ) -> Part | None:
        """Return what `merge` makes of the step's results of all units, in any order; None without units.

        Args:
            step: done on every unit, at the same time on some of them; a function of a module.
            merge: puts two results together; likewise.
            job: what is done. It is pickled for workers that are other processes.
            units: numbers that the step knows.
            seen: told here of every result, of one unit or of several, as it arrives.
        """
        ...


def each_of(
    engine: Engine,
    step: Callable[[Job, int], Part],
    job: Job,
    units: Sequence[int],
    seen: Callable[[int], None] | None = None,
) -> list[Part]:
    """Return the step's result of each unit, in the units' order; `seen` is told how many there are."""
    told = None if seen is None else _counting(seen)
    found = engine.total(partial(_numbered, step), _together, job, units, told) or {}
    return [found[unit] for unit in units]


def _numbered(step: Callable[[Job, int], Part], job: Job, unit: int) -> dict[int, Part]:
    return {unit: step(job, unit)}


def _together(one: dict[int, Part], other: dict[int, Part]) -> dict[int, Part]:
    return one | other


def _counting(seen: Callable[[int], None]) -> Callable[[Mapping[int, object]], None]:
    done = 0

    def told(found: Mapping[int, object]) -> None:
        nonlocal done
        done += len(found)
        seen(done)

    return told


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
        units: Sequence[int],
        seen: Callable[[Part], None] | None = None,
    ) -> Part | None:
        """Return the merged result of all units."""
        return _merged(_told(self._parts(step, job, units), seen), merge)

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
