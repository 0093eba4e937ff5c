"""Who does the parts of a replay: this process, unit by unit, or a Ray cluster; the results are the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Protocol, TypeVar

from pipelines.replay.passes import Job

Part = TypeVar("Part")


class Engine(Protocol):
    """Does a step of a replay on every unit of a log."""

    def total(self, step: Callable[[Job, int], Part], merge: Callable[[Part, Part], Part], job: Job) -> Part | None:
        """Return what `merge` makes of the step's results of all units, in any order; None of a log without units."""
        ...


def total_of(
    step: Callable[[Job, int], Part], merge: Callable[[Part, Part], Part], job: Job, units: Sequence[int]
) -> Part | None:
    """Return what `merge` makes of the step's results of `units`; None without any."""
    parts = (step(job, unit) for unit in units)
    first = next(parts, None)
    return None if first is None else reduce(merge, parts, first)


class LocalEngine:
    """This process, one unit after the other: what is held at once is one batch of rows and the sums."""

    def total(self, step: Callable[[Job, int], Part], merge: Callable[[Part, Part], Part], job: Job) -> Part | None:
        """Return the merged result of all units."""
        return total_of(step, merge, job, job.source.units())


def open_engine(*, address: str | None, workers: int | None) -> LocalEngine:
    """Return this process; an address and workers are a cluster's."""
    return LocalEngine()
