"""Engines by name; what one needs is imported when it is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Literal, NamedTuple

from decision.errors import FieldError

if TYPE_CHECKING:  # the command line lists engines without what they need
    from pipelines.engines.engine import Engine


class Entry(NamedTuple):
    """A line of the registry.

    Attributes:
        module: holds its `open_engine`, a function of the cluster's address and the number of workers.
        library: what it needs, and how that is installed.
    """

    module: str
    library: str = ""


ENGINES = {
    "local": Entry("pipelines.engines.engine"),
    "ray": Entry("pipelines.engines.ray", "Ray: pip install 'decision-service[scale]'"),
}

if TYPE_CHECKING:
    EngineName = str
else:
    EngineName = Literal[tuple(ENGINES)]


def engine_of(name: str, *, address: str | None = None, workers: int | None = None) -> Engine:
    """Return the engine of that name.

    Args:
        name: of `ENGINES`.
        address: of a cluster; None to start one on this machine.
        workers: how many units are worked on at once by a cluster started here; None for one per core.

    Raises:
        FieldError: there is no such engine, or its library is not installed.
    """
    if workers is not None and workers < 1:
        raise FieldError("workers", wanted="1 or more", got=workers)
    if name not in ENGINES:
        raise FieldError.choice("engine", list(ENGINES), name)
    entry = ENGINES[name]
    try:
        module = import_module(entry.module)
    except ImportError as error:
        says = f"needs {entry.library}"
        raise FieldError("engine", wanted="an engine that is installed", got=error, says=says) from error
    return module.open_engine(address=address, workers=workers)
