"""Who does the parts of a replay: this process, unit by unit, or a Ray cluster; the results are the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Literal, Protocol, TypeVar

from decision.errors import FieldError
from pipelines.replay.passes import Job

Part = TypeVar("Part")
EngineName = Literal["local", "ray"]


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


def engine_of(name: str, *, address: str | None = None, workers: int | None = None) -> Engine:
    """Return the engine of that name.

    Args:
        name: ``local`` or ``ray``.
        address: of a Ray cluster; None to start one on this machine.
        workers: how many units are worked on at once by a Ray cluster started here; None for one per core.

    Raises:
        FieldError: there is no such engine, or Ray is not installed.
    """
    if workers is not None and workers < 1:
        raise FieldError("workers", wanted="1 or more", got=workers)
    if name == "local":
        return LocalEngine()
    if name != "ray":
        raise FieldError("engine", wanted="local or ray", got=name)
    try:
        from pipelines.replay.ray import RayEngine
    except ImportError as error:
        raise FieldError("engine", wanted="Ray: pip install 'decision-service[scale]'", got=str(error)) from error
    return RayEngine(address=address, workers=workers)
