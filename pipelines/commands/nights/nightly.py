"""The whole night of a loop, or of every loop one after the other."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer
from rich.console import Console

from decision.errors import FieldError, Words
from pipelines.commands.engines import RayAddress, Where, Workers, opened
from pipelines.commands.outcome import (
    DONE,
    FAILED,
    REFUSED,
    Home,
    Json,
    Outcome,
    command,
    console,
    progress,
    report_error,
    state,
)
from pipelines.commands.steps import Seed
from pipelines.operations.installation import Installation

if TYPE_CHECKING:
    from pipelines.engines.engine import Engine
    from pipelines.runs import Run


@command
def nightly(
    loop: Annotated[
        str | None, typer.Argument(metavar="[LOOP]", help="Name of the loop; with --all, none.", show_default=False)
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Every loop, one after the other.")] = False,
    home: Home = None,
    run_id: Annotated[
        str | None, typer.Option(help="Run to resume or start (default: the last one if it is unfinished).")
    ] = None,
    seed: Seed = 1,
    engine: Where = "local",
    ray_address: RayAddress = None,
    workers: Workers = None,
    json: Json = False,
) -> Outcome:
    """Run the whole night: ingest, join, train, evaluate, promote, compact, tidy. Resume where the last one stopped.

    Made for a scheduler: safe to run again after any failure, with one manifest per run in State and a report of each
    in `reports/nights`. The passes over the log of guard, training and evaluation are done where `--engine` says, with
    the same bits. The exit status is 3 if the gate refuses; a loop that has too little data yet is not a failure.

    With `--all`, a night that fails stops no other one; the exit status is 1 if any failed, else 0.

    Example: `decision nightly --all --json`
    """
    if every == (loop is not None):
        raise FieldError("LOOP", wanted="the name of a loop, or --all", got=Words("both" if every else "neither"))
    if every and run_id is not None:
        raise FieldError("--run-id", wanted="the run of one loop, not of --all", got=run_id)
    with Installation.at(home) as parts:
        at = opened(engine, ray_address, workers)
        if loop is not None:
            return _one(parts, loop, run_id, seed, at)
        if not parts.loops:
            raise FieldError("--all", wanted="a loop: `decision init LOOP` makes one", got=Words("none"))
        nights = {name: _apart(parts, name, seed, at) for name in parts.loops}
    failed = [name for name, night in nights.items() if night.get("error")]
    counted = Counter("failed" if night.get("error") else night["verdict"] for night in nights.values())

    def show(out: Console) -> None:
        told = ", ".join(f"{number} {verdict.replace('_', ' ')}" for verdict, number in counted.items())
        out.print(f"{len(nights)} nights: {told}", highlight=False)
        for name, night in nights.items():
            out.print(f"  {name}: {night.get('error') or night['headline']}", highlight=False, markup=False)
            if "report" in night:
                out.print(f"    report: {night['report']}", highlight=False, markup=False)

    return Outcome({"nights": nights, "failed": failed}, show, FAILED if failed else DONE)


def _one(parts: Installation, loop: str, run_id: str | None, seed: int, at: Engine | None) -> Outcome:
    done = _run(parts, loop, run_id, seed, at)

    told = _told(parts, done)

    def show(out: Console) -> None:
        out.print(f"run [bold]{done.run_id}[/] of {loop}: {told['headline']}")
        out.print(f"report: {told['report']}", highlight=False, markup=False)

    return Outcome(told, show, REFUSED if done.verdict == "refused" else DONE)


def _apart(parts: Installation, loop: str, seed: int, at: Engine | None) -> dict[str, Any]:
    """Run one of several nights and return what came of it, ``error`` for one that failed."""
    from pipelines.remedies import told

    console.print(f"{loop}", highlight=False, markup=False)
    try:
        return _told(parts, _run(parts, loop, None, seed, at))
    except Exception as error:  # whatever it is, the other loops' nights are not to blame
        text = str(error) if isinstance(error, FieldError) else told(error, parts.settings)
        report_error(f"{loop}: {text}")
        return {"loop": loop, "error": text}


def _run(parts: Installation, loop: str, run_id: str | None, seed: int, at: Engine | None) -> Run:
    from pipelines.nightly import nightly as run

    def told(step: str, state: str) -> None:
        console.print(f"  {step:<9} {state}", highlight=False)

    return run(
        parts.settings,
        parts.log,
        parts.lake,
        parts.registry,
        parts.loop(loop),
        now=datetime.now(UTC),
        run_id=run_id,
        seed=seed,
        told=None if state.verbose else told,
        progress=progress,
        engine=at,
    )


def _told(parts: Installation, run: Run) -> dict[str, Any]:
    from pipelines.reports.night import night_key, night_told

    report = f"{parts.settings.files_url}/{night_key(run.loop, run.run_id, 'html')}"
    headline = night_told(run, {}).headline
    return {**msgspec.to_builtins(run), "verdict": run.verdict, "headline": headline, "report": report}
