"""A loop's settings, for every machine that shares State."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console

from decision.errors import FieldError
from pipelines.commands.outcome import Home, Json, Outcome, command, who
from pipelines.operations.installation import Installation
from pipelines.settings import Settings


@command
def apply(
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="A loop's settings, as `decision init` writes them.")
    ] = None,
    home: Home = None,
    loop: Annotated[str | None, typer.Option(help="The loop (default: the file's folder).")] = None,
    expected: Annotated[
        int | None, typer.Option(min=0, help="Refuse unless the settings have this version; 0 for a new loop.")
    ] = None,
    again: Annotated[
        int | None, typer.Option(min=1, help="In place of FILE: a version of before, by its number in the history.")
    ] = None,
    history: Annotated[
        bool, typer.Option("--history", help="Change nothing; show who applied what when. --json has the texts, too.")
    ] = False,
    json: Json = False,
) -> Outcome:
    """Put a loop's settings into force on every machine that shares DECISION_STATE, within seconds.

    Without DECISION_STATE there is nothing to apply: a running service takes loop.toml as it is edited.

    Examples: `decision apply .decision/loops/news/loop.toml`, `decision apply --loop news --history`,
    `decision apply --loop news --again 3`
    """
    from pipelines.operations.apply import apply

    name = _loop_of(file, loop)
    if not history and (file is None) == (again is None):
        raise FieldError("file", wanted="given, or --again, and not both", got=None if file is None else str(file))
    with Installation.at(home) as parts:
        if history:
            return _history(parts.settings, name)
        text = _read(file) if file is not None else _of_before(parts.settings, name, again)
        done = apply(parts.settings, text, name, by=who(), environ=os.environ, expected=expected)

    def show(out: Console) -> None:
        out.print(f"{name}: version {done.version} of its settings is in force", highlight=False)
        _tell_changed(out, done.changed)

    return Outcome(msgspec.to_builtins(done), show)


def _loop_of(file: Path | None, loop: str | None) -> str:
    if loop is None and file is None:
        raise FieldError("loop", wanted="named by --loop, or by the folder of FILE", got=None)
    return loop or (file or Path()).absolute().parent.name


def _read(file: Path) -> str:
    from pipelines.settings import read_loop_file

    if not file.exists():
        raise FieldError("file", wanted="a file that exists", got=str(file))
    return read_loop_file(file)


def _of_before(settings: Settings, name: str, again: int | None) -> str:
    from pipelines.operations.apply import applied

    kept = {change.version: change.value for change in applied(settings, name)}
    value = kept.get(again or 0)
    if value is None:
        known = ", ".join(str(version) for version, text in kept.items() if text is not None)
        raise FieldError("again", wanted=f"a version that is kept ({known or 'there is none'})", got=again)
    return value.decode()


def _history(settings: Settings, name: str) -> Outcome:
    from pipelines.operations.apply import changes_of
    from pipelines.operations.edit import settings_history

    changes = settings_history(settings, name)
    rows = [
        {
            "version": change.version,
            "at": change.at.isoformat(),
            "by": change.by,
            "changed": changed,
            "text": None if change.value is None else change.value.decode(errors="replace"),
        }
        for change, changed in zip(changes, changes_of(changes, name), strict=True)
    ]

    def show(out: Console) -> None:
        if not rows:
            out.print(f"{name}: nothing was applied", highlight=False)
        for row in rows:
            out.print(f"version {row['version']}, {str(row['at'])[:19]} by {row['by']}", highlight=False, markup=False)
            _tell_changed(out, row["changed"])

    return Outcome({"loop": name, "history": rows}, show)


def _tell_changed(out: Console, changed: dict[str, tuple[Any, Any]]) -> None:
    for path, (before, now) in changed.items():
        out.print(f"  {path}: {before!r} -> {now!r}", highlight=False, markup=False)
