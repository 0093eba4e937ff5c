"""What has become too old goes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from pipelines.commands.outcome import Home, Json, Outcome, command, progress
from pipelines.operations.installation import Installation


@command
def tidy(
    loop: Annotated[
        str | None,
        typer.Argument(
            metavar="[LOOP]", help="Whose nights, versions and features to look at (default: every loop's)."
        ),
    ] = None,
    home: Home = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, and remove nothing.")] = False,
    json: Json = False,
) -> Outcome:
    """Remove what is older than `[retention]` in the loops' settings keeps it; the last step of every night.

    Messages of the embedded log that are in the lake and read by all, earlier versions of the lake's tables, manifests
    of nights, imports, versions that nobody goes back to, features as they were, and what killed processes left. What
    loops share stays as long as any of them asks.

    Example: `decision tidy --dry-run`
    """
    from pipelines.retention.tidy import tidy as run

    with Installation.at(home) as parts:
        if loop is not None:
            parts.loop(loop)
        now = datetime.now(UTC)
        done = run(parts.settings, parts.log, parts.lake, now=now, loop=loop, dry_run=dry_run, progress=progress)

    def show(out: Console) -> None:
        table = Table("part", "would go" if dry_run else "gone", "bytes", "what stays")
        for part in done.parts:
            table.add_row(part.part, f"{part.number:,}", f"{part.bytes:,}", part.held)
        out.print(table)

    return Outcome(msgspec.to_builtins(done), show)
