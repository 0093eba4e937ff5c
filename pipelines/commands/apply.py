"""A loop's settings, for every machine that shares State."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from pipelines.commands.outcome import Home, Json, Outcome, command, who
from pipelines.operations.installation import Installation


@command
def apply(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A loop's settings, as `decision init` writes them.")],
    home: Home = None,
    loop: Annotated[str | None, typer.Option(help="The loop (default: the file's folder).")] = None,
    expected: Annotated[
        int | None, typer.Option(min=0, help="Refuse unless the settings have this version; 0 for a new loop.")
    ] = None,
    history: Annotated[bool, typer.Option("--history", help="Change nothing; show who applied when.")] = False,
    json: Json = False,
) -> Outcome:
    """Put a loop's settings into force on every machine that shares DECISION_STATE, within seconds.

    Without DECISION_STATE there is nothing to apply: a running service takes loop.toml as it is edited.

    Examples: `decision apply .decision/loops/news/loop.toml`, `decision apply loop.toml --loop news --expected 3`
    """
    from pipelines.operations.apply import applied, apply
    from pipelines.settings import read_loop_file

    name = loop or file.absolute().parent.name
    with Installation.at(home) as parts:
        if history:
            changes = applied(parts.settings, name)
            rows = [{"version": one.version, "at": one.at.isoformat(), "by": one.by} for one in changes]

            def tell(out: Console) -> None:
                table = Table("version", "when", "by", title=f"settings of {name}")
                for row in rows:
                    table.add_row(str(row["version"]), str(row["at"])[:19], str(row["by"]))
                out.print(table)

            return Outcome({"loop": name, "history": rows}, tell)
        done = apply(parts.settings, read_loop_file(file), name, by=who(), environ=os.environ, expected=expected)

    def show(out: Console) -> None:
        out.print(f"{name}: version {done.version} of its settings is in force", highlight=False)
        for path, (before, now) in done.changed.items():
            out.print(f"  {path}: {before!r} -> {now!r}", highlight=False, markup=False)

    return Outcome(msgspec.to_builtins(done), show)
