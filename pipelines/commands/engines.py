"""Where the heavy passes of a command are done: the options that say it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.engines.registry import EngineName

if TYPE_CHECKING:
    from pipelines.engines.engine import Engine

Where = Annotated[EngineName, typer.Option("--engine", help="Where the work is done.")]
RayAddress = Annotated[
    str | None, typer.Option("--ray-address", help="Address of a running Ray cluster (default: start one here).")
]
Workers = Annotated[
    int | None,
    typer.Option("--workers", help="Parts of the log worked on at once (default: one per core; here at most 4)."),
]


def opened(engine: str, ray_address: str | None, workers: int | None) -> Engine:
    """Return the engine that the options ask for.

    Raises:
        FieldError: it is not installed.
    """
    from pipelines.engines.registry import engine_of

    return engine_of(engine, address=ray_address, workers=workers)
