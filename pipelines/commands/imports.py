"""Logs of other systems in: `decision import`, one command a format."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from decision.errors import FieldError
from pipelines.commands.outcome import Home, Json, Outcome, command, console, progress
from pipelines.formats.registry import FORMATS, LEFT_OUT, format_of
from pipelines.operations.installation import Installation

if TYPE_CHECKING:
    from pipelines.formats.store import Imported

Name = Annotated[str, typer.Option("--name", help="Name of the import, for `decision replay` and `decision export`.")]
Into = Annotated[
    str | None,
    typer.Option(
        "--into",
        metavar="LOOP",
        help="Make it part of this loop's history: trained on, judged on and replayed like its own.",
    ),
]
Map = Annotated[
    list[str] | None, typer.Option("--map", help="FIELD=COLUMN, as often as there are columns of another name.")
]
Uniform = Annotated[bool, typer.Option("--uniform", help="Every action offered was as probable: a randomised trial.")]
TimeUnit = Annotated[
    Literal["s", "ms", "us", "ns"] | None,
    typer.Option("--time-unit", help="What times that are numbers count since 1970; needed where it is not certain."),
]
Strict = Annotated[bool, typer.Option("--strict", help="Refuse what would be left out.")]


def importer(format: str) -> Callable[..., None]:
    """Return the command that imports logs of `format`: it has the options that its `Entry` asks for."""
    entry = FORMATS[format]
    told = "Folder of the data set (default: the shipped sample)." if entry.shipped else "What to read."
    needed = typer.Argument(metavar="PATH", help=told, show_default=False)
    options: dict[str, tuple[Any, Any]] = {
        "path": (Annotated[Path | None, needed], None) if entry.shipped else (Annotated[Path, needed], ...),
        **({"map": (Map, None)} if entry.mapped else {}),
        **({"uniform": (Uniform, False)} if entry.drawn else {}),
        **({"strict": (Strict, False)} if entry.strict else {}),
        **({"time_unit": (TimeUnit, None)} if entry.timed else {}),
        "into": (Into, None),
        "name": (Name, format),
        "home": (Home, None),
        "json": (Json, False),
    }

    def work(*, path: Path | None, home: Home, name: str, into: str | None, json: Json, **asked: Any) -> Outcome:
        given = (_columns(asked.pop("map") or []),) if entry.mapped else ()
        from pipelines.formats.once import once

        with Installation.at(home) as parts:
            with _named("" if path is None else path.name):
                found = list(map(once, format_of(format).find(path, name, *given, **asked)))
            return _imported(parts, format, found) if into is None else _taken(parts, into, found)

    # The command line reads a command's options off its signature.
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [
        inspect.Parameter(
            option, keyword, default=inspect.Parameter.empty if default is ... else default, annotation=of
        )
        for option, (of, default) in options.items()
    ]
    work.__doc__ = entry.help
    work.__annotations__ = {option: of for option, (of, _) in options.items()}
    work.__signature__ = inspect.Signature(parameters)  # pyright: ignore[reportFunctionMemberAccess]
    return command(work)


@command
def vw_model(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="The model file.", show_default=False)],
    into: Annotated[str, typer.Option("--into", metavar="LOOP", help="The loop that it will decide for.")],
    shape: Annotated[
        Literal["personalizer", "plain"],
        typer.Option(
            "--shape", help="Of the lines that it learned from: FromUrl, i and j as in Personalizer's logs, or none."
        ),
    ] = "personalizer",
    in_charge: Annotated[
        bool, typer.Option("--in-charge", help="Make it the champion at once, without asking the gate.")
    ] = False,
    home: Home = None,
    json: Json = False,
) -> Outcome:
    """Make a version of a Vowpal Wabbit model: a file of --cb_explore_adf or --cb_adf, as Personalizer exported it.

    It decides as VW would, and draws by the file's --epsilon. `decision promote` asks the gate about it, `--in-charge`
    does not. Other kinds of models are refused by name.

    Example: `decision import vw-model model.vw --into news --in-charge`
    """
    from datetime import UTC, datetime

    from pipelines.commands.outcome import who
    from pipelines.formats.store import check_file
    from pipelines.training.vw_model import MAX_FILE, put_in_charge, register_vw_model

    check_file(path)
    with path.open("rb") as file:
        data = file.read(MAX_FILE + 1)
    now = datetime.now(UTC)
    with Installation.at(home) as parts:
        loop = parts.loop(into)
        made = register_vw_model(parts.registry, loop, data, name=path.name, now=now, shape=shape)
        if in_charge:
            told = f"VW model {path.name} imported by hand"
            put_in_charge(parts.registry, into, made.version, by=who(), now=now, reason=told)
        champion = parts.registry.aliases(into).get("champion") == made.version

    def show(out: Console) -> None:
        out.print(f"{path.name} is version {made.version} of {into}; it draws {made.epsilon:.1%} uniformly")
        out.print(
            "it is in charge"
            if champion
            else f"it answers nobody yet: `decision promote {into} --version {made.version}` asks the gate"
        )

    return Outcome({"loop": into, **msgspec.to_builtins(made), "in_charge": champion}, show)


def _imported(parts: Installation, format: str, found: Any) -> Outcome:
    from pipelines.formats.store import save_import

    notes: list[Imported] = []
    for each in found:
        about: Any = {"format": format, "source": each.source, "attribution": each.attribution}
        about["left_out"] = each.left_out
        with _named(each.source):
            notes.append(save_import(parts.settings, each.name, each.batches, **about, progress=progress))
        console.print(f"  {each.name}: {notes[-1].rows} decisions", highlight=False)
    data = {
        "imports": [{**msgspec.to_builtins(note), **_narrowing(note.rows, note.reasons)} for note in notes],
        "rows": sum(note.rows for note in notes),
    }

    def show(out: Console) -> None:
        table = Table("import", "decisions", "with distribution", "first", "last")
        for note in notes:
            first, last = (text[:19] if text else "" for text in (note.first, note.last))
            table.add_row(note.name, str(note.rows), str(note.with_pmf), first, last)
        out.print(table)
        for note in notes:
            _show_left_out(out, note.name, note.reasons, _narrowing(note.rows, note.reasons))

    return Outcome(data, show)


def _taken(parts: Installation, into: str, found: Any) -> Outcome:
    from pipelines.formats.history import take_in

    loop = parts.loop(into)
    rows = repeated = 0
    left_out: dict[Any, int] = {}
    for each in found:
        with _named(each.source):
            taken = take_in(parts.lake, loop, each.batches, progress=progress)
        rows, repeated = rows + taken.rows, repeated + taken.repeated
        for reason, count in each.left_out().items():
            left_out[reason] = left_out.get(reason, 0) + count
    # What the loop has already is no repeat in the log: nothing of it counted before the import was run again.
    narrowing = _narrowing(rows + repeated, left_out)
    if repeated:
        left_out["repeated"] = left_out.get("repeated", 0) + repeated
    left_out = {reason: count for reason, count in left_out.items() if count}
    data = {"loop": into, "rows": rows, "left_out": sum(left_out.values()), "reasons": left_out}
    data |= narrowing

    def show(out: Console) -> None:
        out.print(f"{rows} decisions are part of the history of {into}", highlight=False)
        _show_left_out(out, into, left_out, narrowing)

    return Outcome(data, show)


def _show_left_out(out: Console, name: str, reasons: dict[Any, int], narrowing: dict[str, float]) -> None:
    for reason, count in reasons.items():
        out.print(f"{name}: left out {count} {LEFT_OUT[reason]}", highlight=False)
    for share in narrowing.values():
        told = f"events that come again would make intervals {share:.1%} too narrow if they counted again"
        out.print(f"{name}: {told}", highlight=False)


def _narrowing(rows: int, reasons: Mapping[Any, int]) -> dict[str, float]:
    """Return by which share intervals would be too narrow with the events that came again; nothing without such."""
    from pipelines.formats.once import narrowing

    repeated = reasons.get("repeated", 0)
    return {"repeats_would_narrow": round(narrowing(rows, repeated), 6)} if repeated else {}


@contextmanager
def _named(source: str) -> Iterator[None]:
    """Name what was read in errors of what stands in it."""
    try:
        yield
    except FieldError as error:
        if not source or error.source or error.field in ("loop", "name", "path", "source"):
            raise
        raise error.from_source(source) from error


def _columns(map: list[str]) -> dict[str, str]:
    columns: dict[str, str] = {}
    for text in map:
        field, equals, column = text.partition("=")
        if not equals or not field or not column:
            raise FieldError("map", wanted="FIELD=COLUMN", got=text)
        if field in columns:
            raise FieldError("map", wanted="each field once", got=text)
        columns[field] = column
    return columns
