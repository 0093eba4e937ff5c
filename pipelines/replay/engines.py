"""Engines by name; Ray is imported when it is asked for."""

from __future__ import annotations

from typing import Literal

from decision.errors import FieldError
from pipelines.replay.engine import Engine, LocalEngine

EngineName = Literal["local", "ray"]


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
        raise FieldError.choice("engine", ["local", "ray"], name)
    try:
        from pipelines.replay.ray import RayEngine
    except ImportError as error:
        says = "needs Ray: pip install 'decision-service[scale]'"
        raise FieldError("engine", wanted="local where Ray is not installed", got=error, says=says) from error
    return RayEngine(address=address, workers=workers)
