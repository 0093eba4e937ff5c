"""How a command ends: its result on stdout, everything else on stderr, and an exit status that scripts can rely on.

0 done, 1 failed, 2 bad arguments or input, 3 a gate refused. With ``--json`` stdout gets exactly one line of JSON,
whatever libraries print: their output is sent to stderr.
"""

from __future__ import annotations

import functools
import getpass
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ParamSpec

import msgspec
import typer
from rich.console import Console

from decision.errors import FieldError
from pipelines.commands.bar import Bar
from pipelines.logs import Form, masked, set_up
from pipelines.progress import Progress, silent
from pipelines.settings import Settings, load_settings

DONE, FAILED, BAD_INPUT, REFUSED = 0, 1, 2, 3
INTERRUPTED = 130

P = ParamSpec("P")

Json = Annotated[bool, typer.Option("--json", help="Print the result as one line of JSON on stdout.")]
Home = Annotated[
    Path | None, typer.Option("--home", help="Folder for all durable data (default: $DECISION_HOME or ./.decision).")
]
Loop = Annotated[str, typer.Argument(metavar="LOOP", help="Name of the loop.", show_default=False)]
Seed = Annotated[int, typer.Option(min=0, help="Seed of all random draws.")]

console = Console(stderr=True)
"""Where progress and messages go."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a command hands back.

    Attributes:
        data: the result, as ``--json`` prints it.
        show: prints it for people.
        status: exit status.
    """

    data: dict[str, Any]
    show: Callable[[Console], None] | None = None
    status: int = DONE


@dataclass(slots=True)
class _State:
    verbose: int = 0
    log_format: Form = "text"
    progress: Progress = silent


state = _State()
LEVELS = (logging.WARNING, logging.INFO, logging.DEBUG)
"""Of log lines, by the number of times that ``-v`` is given."""


def command(work: Callable[P, Outcome]) -> Callable[P, None]:
    """Return `work` as a command: it prints the outcome and ends with its status.

    An argument ``json`` of `work` decides where to; errors become a line on stderr and a status.
    """

    @functools.wraps(work)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        json = bool(kwargs.get("json"))
        set_up(state.log_format, LEVELS[min(state.verbose, 2)])
        with _stdout_kept(json) as write:
            home = kwargs.get("home")
            outcome = _outcome(lambda: _watched(lambda: work(*args, **kwargs), json), json, write, home)
            if outcome.show is not None:
                outcome.show(console if json else Console())
            if json:
                write(outcome.data)
        if outcome.status:
            raise typer.Exit(outcome.status)

    return run


def progress(what: str, done: float, total: float | None = None) -> None:
    """Draw how far the running command has come: a `pipelines.progress.Progress` for the steps it calls.

    A bar appears after three seconds, on a terminal and without ``--json`` only.
    """
    state.progress(what, done, total)


def _watched(work: Callable[[], Outcome], json: bool) -> Outcome:
    if json or not (console.is_interactive and console.file.isatty()):
        return work()
    with Bar(console) as state.progress:
        try:
            return work()
        finally:
            state.progress = silent


def _outcome(work: Callable[[], Outcome], json: bool, write: Callable[[dict[str, Any]], None], home: object) -> Outcome:
    try:
        return work()
    except (typer.Exit, typer.Abort, typer.TyperException):
        raise
    except KeyboardInterrupt:
        console.print("interrupted")
        raise typer.Exit(INTERRUPTED) from None
    except FieldError as error:
        report_error(str(error))
        if json:
            write({"error": masked(str(error)), "field": error.field, "wanted": error.wanted, "got": error.got})
        raise typer.Exit(BAD_INPUT) from error
    except Exception as error:
        if state.verbose:
            console.print_exception(show_locals=False)
        from pipelines.remedies import told  # knows the registry's errors, whose libraries no quick command waits for

        message = told(error, _installation(home))
        report_error(message)
        if json:
            write({"error": masked(message)})
        raise typer.Exit(FAILED) from error


def _installation(home: object) -> Settings | None:
    try:
        return load_settings(home=None if home is None else str(home))
    except FieldError:
        return None


def report_error(message: str) -> None:
    """Print an error for people on stderr."""
    console.print("[bold red]error:[/] ", end="")
    console.print(masked(message), markup=False, highlight=False, soft_wrap=True)


def print_json(data: dict[str, Any]) -> None:
    """Print `data` as one line on stdout; numbers that are not finite become null."""
    sys.stdout.write(msgspec.json.encode(data).decode() + "\n")
    sys.stdout.flush()


def who() -> str:
    """Return the name of the user, for written verdicts."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown user"


@contextmanager
def _stdout_kept(json: bool) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Yield what writes the result; with `json` everything else that is printed meanwhile goes to stderr."""
    if not json:
        yield print_json
        return
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    shown, sys.stdout = sys.stdout, sys.stderr

    def write(data: dict[str, Any]) -> None:
        line = msgspec.json.encode(data) + b"\n"
        while line:
            line = line[os.write(kept, line) :]

    try:
        yield write
    finally:
        sys.stdout = shown
        sys.stderr.flush()
        os.dup2(kept, 1)
        os.close(kept)
