"""A real service on one loop, in its own process, for clients to ask."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipelines.operations.processes import free_port, process, serve_command, wait_until_ready
from pipelines.settings import Settings, load_settings


def new_installation(folder: Path, text: str = "", loop: str = "news") -> Settings:
    """Return an installation of one loop with a port of its own; `text` is the loop's file."""
    settings = load_settings({}, home=str(folder), port=free_port())
    path = settings.loop_path(loop)
    path.parent.mkdir(parents=True)
    path.write_text(text)
    return settings


@contextmanager
def running(settings: Settings) -> Iterator[str]:
    """Run the service of an installation and give its address."""
    output = settings.root / "service.log"
    with process("service", serve_command(settings), settings, output) as started:
        wait_until_ready(started, settings, output)
        yield address(settings)


def address(settings: Settings) -> str:
    """Return where the service of an installation answers."""
    return f"http://{settings.host}:{settings.port}"
