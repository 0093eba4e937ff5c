"""`decision study`: run what the papers claim again, on simulators, with other seeds if a reader wishes."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from decision.errors import FieldError, Words
from pipelines.commands.outcome import Home, Json, Outcome, command, console, progress
from pipelines.operations.installation import Installation

if TYPE_CHECKING:
    from pipelines.studies.report import Findings

STUDIES = {
    "regression-oracle": "pipelines.studies.regression_oracle",
    "stepmix": "pipelines.studies.stepmix",
    "fairness": "pipelines.studies.fairness",
    "sim2rec": "pipelines.studies.sim2rec",
    "auxiliary": "pipelines.studies.auxiliary",
    "tilt": "pipelines.studies.tilt",
    "redteam": "pipelines.studies.redteam",
    "offline": "pipelines.studies.offline",
}
"""Module of each study by name; one has ``seeds(quick=)`` and ``run(seeds, length, quick=, progress=)``.

One with ``KEEPS`` also takes ``kept=``, the folder of --out, and goes on there with what it finished before.
"""

MOST_SEEDS, LARGEST_SEED, LARGEST_SIZE = 100, 2**32 - 1, 10_000_000


@command
def study(
    name: Annotated[str, typer.Argument(metavar="NAME", help=f"One of: {', '.join(STUDIES)}.", show_default=False)],
    quick: Annotated[bool, typer.Option("--quick", help="Smaller sizes: three minutes at most.")] = False,
    out: Annotated[
        Path | None, typer.Option("--out", help="Write the result, tables and plots to this folder.")
    ] = None,
    seeds: Annotated[str | None, typer.Option("--seeds", help="Seeds, for example 7,8,9.", show_default=False)] = None,
    size: Annotated[
        int | None,
        typer.Option(
            "--size",
            help="Length of a run: decisions per generation (regression-oracle), episodes (stepmix), rounds, "
            "decisions of a log (auxiliary) or of a night (tilt), rows (redteam), or users of a log (offline).",
        ),
    ] = None,
    world: Annotated[
        str | None,
        typer.Option(
            "--world",
            help="Exploration rules in payments, clicks or revenue (regression-oracle); lts, driver-programme or "
            "retention (sim2rec).",
        ),
    ] = None,
    log: Annotated[
        str | None,
        typer.Option(
            "--log",
            metavar="LOOP",
            help="Judge the simulators that are learned from this loop's own log (sim2rec).",
            show_default=False,
        ),
    ] = None,
    home: Home = None,
    rate: Annotated[
        float | None, typer.Option("--rate", help="Share of visitors who click or buy there, for example .005.")
    ] = None,
    json: Json = False,
) -> Outcome:
    """Reproduce a paper's claims on simulators: numbers with intervals, tables and plots.

    Example: `decision study fairness --quick --out report`
    """
    if name not in STUDIES:
        raise FieldError.choice("name", list(STUDIES), name)
    asked = None if seeds is None else parse_seeds(seeds)
    if size is not None and not 1 <= size <= LARGEST_SIZE:
        raise FieldError("size", wanted=f"a number from 1 to {LARGEST_SIZE}", got=size)
    from pipelines.studies.report import prepare  # draws with altair, which takes a second to import

    if log is not None:
        given = {"world": world, "rate": rate, "size": size}
        if name != "sim2rec" or any(value is not None for value in given.values()):
            raise FieldError("log", wanted="the study 'sim2rec', without --world, --rate and --size", got=log)
        return _written(_of_log(log, home, asked, quick=quick, out=out), out)
    module: Any = importlib.import_module(STUDIES[name])
    asked_world = {field: given for field, given in (("world", world), ("rate", rate)) if given is not None}
    if asked_world and not hasattr(module, "WORLDS"):
        raise FieldError(
            next(iter(asked_world)), wanted="the study 'regression-oracle' or 'sim2rec'", got=Words(f"that of {name}")
        )
    if out is not None:
        prepare(out)
    chosen = module.seeds(quick=quick) if asked is None else asked
    kept = {"kept": out} if getattr(module, "KEEPS", False) else {}
    return _written(module.run(chosen, size, quick=quick, progress=_told, **kept, **asked_world), out)


def _of_log(loop: str, home: Path | None, asked: list[int] | None, *, quick: bool, out: Path | None) -> Findings:
    from pipelines.studies.report import prepare
    from pipelines.studies.sim2rec_log import checked_seed, of_log

    seed = checked_seed(asked)
    if out is not None:
        prepare(out)
    with Installation.at(home) as parts:
        return of_log(parts.lake, parts.registry, parts.loop(loop), seed, quick=quick, progress=_told)


def _written(findings: Findings, out: Path | None) -> Outcome:
    from pipelines.studies.report import show, write

    if out is not None:
        write(findings, out)
        console.print(f"written: {out / 'report.html'}, tables.md, result.json, figures/", markup=False)

    def tell(to: Console) -> None:
        show(findings, to)

    return Outcome(findings.result, tell)


def parse_seeds(text: str) -> list[int]:
    """Return the seeds of ``7,8,9``.

    Raises:
        FieldError: one is no whole number from 0 to 2^32 - 1, comes twice, or there are none or more than 100.
    """
    parts = [part.strip() for part in text.split(",")]
    if len(parts) > MOST_SEEDS:
        raise FieldError("seeds", wanted=f"at most {MOST_SEEDS} seeds", got=len(parts))
    seeds: list[int] = []
    for part in parts:
        if not (part.isascii() and part.isdigit() and len(part) <= 10 and int(part) <= LARGEST_SEED):
            raise FieldError("seeds", wanted=f"whole numbers from 0 to {LARGEST_SEED}, as in 7,8,9", got=part)
        if int(part) in seeds:
            raise FieldError("seeds", wanted="a seed that was not named before", got=part)
        seeds.append(int(part))
    return seeds


def _told(what: str, share: float) -> None:
    """Draw a bar on a terminal; print a line per part elsewhere: a study takes hours."""
    if console.is_interactive:
        progress(what, share, 1.0)
    else:
        console.print(f"{share:4.0%} {what}", markup=False, highlight=False)
