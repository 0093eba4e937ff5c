"""Who does the parts of a replay: this process, unit by unit, or a Ray cluster; the results are the same."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal, Protocol, TypeVar

from decision.errors import FieldError
from pipelines.replay_pass import Job

Part = TypeVar("Part")
EngineName = Literal["local", "ray"]


class Engine(Protocol):
    """Does a step of a replay on every unit of a log."""

    def map(self, step: Callable[[Job, int], Part], job: Job) -> Iterable[Part]:
        """Return the step's result of every unit, in any order."""
        ...


class LocalEngine:
    """This process, one unit after the other: what is held at once is one batch of rows and the sums."""

    def map(self, step: Callable[[Job, int], Part], job: Job) -> Iterable[Part]:
        """Yield the step's result of every unit."""
        for unit in job.source.units():
            yield step(job, unit)


def engine_of(name: str, *, address: str | None = None, workers: int | None = None) -> Engine:
    """Return the engine of that name.

    Args:
        name: ``local`` or ``ray``.
        address: of a Ray cluster; None to start one on this machine.
        workers: how many units are worked on at once by a Ray cluster started here; None for one per core.

    Raises:
        FieldError: there is no such engine, or Ray is not installed.
    """
    if name == "local":
        return LocalEngine()
    if name != "ray":
        raise FieldError("engine", wanted="local or ray", got=name)
    try:
        from pipelines.replay_ray import RayEngine
    except ImportError as error:
        raise FieldError("engine", wanted="Ray: pip install 'decision-service[scale]'", got=str(error)) from error
    return RayEngine(address=address, workers=workers)
