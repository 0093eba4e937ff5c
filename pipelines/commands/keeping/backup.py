"""Copies of an installation, and installations from copies."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.filesize import decimal

from pipelines.commands.outcome import Home, Json, Outcome, command, progress
from pipelines.settings import load_settings


@command
def backup(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="Folder to make; outside of the home folder.")],
    home: Home = None,
    json: Json = False,
) -> Outcome:
    """Copy the installation while it runs: databases, tables and files that fit together, and the books of every loop.

    What has an address of its own, Kafka, PostgreSQL, object storage, is not in it: the result says what to use.

    Example: `decision backup /mnt/backups/monday`
    """
    from pipelines.operations.backup import backup as run

    settings = load_settings(home=None if home is None else str(home))
    done = run(settings, path, now=datetime.now(UTC), progress=progress)
    data = {
        "path": str(path.absolute()),
        "taken_at": done.taken_at.isoformat(),
        "files": len(done.files),
        "bytes": done.bytes,
        "tables": done.tables,
        "loops": done.loops,
        "elsewhere": done.elsewhere,
    }

    def show(out: Console) -> None:
        out.print(f"[bold]{path}[/]: {len(done.files)} files, {decimal(done.bytes)}", highlight=False)
        _show_elsewhere(done.elsewhere, out)

    return Outcome(data, show)


@command
def restore(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="The backup.")],
    home: Home = None,
    json: Json = False,
) -> Outcome:
    """Make a home folder from a backup, checked byte by byte, and against the books of every loop.

    The home folder must not exist yet, or be empty. Erase again what was erased since the backup was taken.

    Example: `decision restore /mnt/backups/monday --home /srv/decision`
    """
    from pipelines.operations.restore import restore as run

    settings = load_settings(home=None if home is None else str(home))
    done = run(settings, path, progress=progress)

    def show(out: Console) -> None:
        out.print(f"[bold]{done.home}[/]: {done.files} files, {decimal(done.bytes)}", highlight=False)
        for name, books in done.loops.items():
            out.print(f"{name}: {books['decided']} decided, as when it was backed up", highlight=False)
        if done.to_ingest:
            out.print(f"to ingest: {done.to_ingest} messages", highlight=False)
        for night in done.nights:
            out.print(f"{night}: was under way, begins anew", highlight=False)
        out.print(f"erase again what was erased since {done.taken_at.isoformat(timespec='seconds')}", highlight=False)
        _show_elsewhere(done.elsewhere, out)

    return Outcome(msgspec.to_builtins(done), show)


def _show_elsewhere(elsewhere: dict[str, str], out: Console) -> None:
    for name, advice in elsewhere.items():
        out.print(f"not in it: DECISION_{name.upper()}. Back it up by {advice}", markup=False, highlight=False)
