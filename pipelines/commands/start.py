"""The way in: a demonstration of the whole loop, and the settings file of a first loop of one's own."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import typer
from rich.console import Console

from decision.errors import FieldError, Words
from pipelines.commands.outcome import Home, Json, Loop, Outcome, command, console, progress
from pipelines.operations.installation import Installation


@command
def init(
    loop: Loop,
    home: Home = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the settings of an existing loop.")] = False,
    sessions: Annotated[
        bool, typer.Option("--sessions", help="A feed or a programme: its policy remembers its users.")
    ] = False,
    json: Json = False,
) -> Outcome:
    """Write a new loop's settings file with every key explained. A running service picks it up by itself.

    Examples: `decision init news && $EDITOR .decision/loops/news/loop.toml`, `decision init feed --sessions`
    """
    from pipelines.operations.init import SESSIONS, init_loop

    with Installation.at(home) as parts:
        path = init_loop(parts.settings, loop, values=SESSIONS if sessions else None, replace=force)
        apply = f"`decision apply {path}`, then " if parts.settings.state else ""

    def show(out: Console) -> None:
        out.print(f"[bold]{path}[/]\nnext: {apply}`decision serve`, then POST /v1/loops/{loop}/decide", highlight=False)

    return Outcome({"loop": loop, "path": str(path)}, show)


@command
def demo(
    log: Annotated[
        Literal["local", "kafka"], typer.Option(help="Event log: a local file or a Kafka broker.")
    ] = "local",
    seed: Annotated[int, typer.Option(help="Seed of the world, the traffic and training.")] = 1,
    decisions: Annotated[int, typer.Option(min=100, help="Decisions per generation.")] = 1500,
    generations: Annotated[int, typer.Option(min=1, max=20, help="Number of generations.")] = 4,
    quick: Annotated[bool, typer.Option("--quick", help="Two small generations, in about a minute.")] = False,
    open_bandit: Annotated[
        bool, typer.Option("--open-bandit/--no-open-bandit", help="Evaluate the shipped Open Bandit logs too.")
    ] = True,
    sessions: Annotated[
        bool, typer.Option("--sessions", help="A feed whose policy remembers its readers, instead of the digits.")
    ] = False,
    tour: Annotated[
        bool, typer.Option("--tour", help="Leave a living installation behind, to look around in on the console.")
    ] = False,
    out: Annotated[Path, typer.Option(help="Folder for the report.")] = Path("out"),
    home: Annotated[Path | None, typer.Option(help="Keep the installation here (default: a temporary folder).")] = None,
    json: Json = False,
) -> Outcome:
    """Run the whole loop: real traffic over HTTP, outcomes, nightly training, gates, promotions, and a report.

    Handwritten digits are shown to the service, which learns from rewards alone which digit is which; then the shipped
    Open Bandit logs are imported and evaluated. With `--sessions`, a bandit wears the readers of a feed out, and a
    policy with memory, trained from the loop's own log, is rolled out by the guard in its place.

    `--tour` fills an installation with a week of a shop and a day of a feed instead: nights, a rollout under way, a
    refused version, an alarm, a panel with verdicts, disputes and pairs that wait. It says how to start the service,
    and who may sign in where.

    Examples: `decision demo`, `decision demo --log kafka --json`, `decision demo --sessions`, `decision demo --tour`
    """
    if tour:
        if sessions or log != "local":
            raise FieldError("tour", wanted="alone, without --sessions and --log", got=Words("more"))
        return _tour(seed, quick, out / "tour" if home is None else home)
    if sessions:
        if log != "local":
            raise FieldError("log", wanted="'local' with --sessions", got=log)
        return _sessions(seed, quick, out, home)
    from pipelines.demo.run import Plan, run_demo
    from pipelines.demo.table import show_demo

    plan = Plan(log=log, seed=seed, decisions=decisions, generations=generations, open_bandit=open_bandit)
    if quick:
        plan = msgspec.structs.replace(plan, decisions=min(decisions, 1250), generations=min(generations, 2))
    result = run_demo(plan, out=out, home=home, console=console, progress=progress)
    return Outcome(result.summary(), lambda where: show_demo(result, where))


def _tour(seed: int, quick: bool, home: Path) -> Outcome:
    from pipelines.demo.tour import QUICK, TourPlan, run_tour, show_tour

    plan = msgspec.structs.replace(QUICK if quick else TourPlan(), seed=seed)
    made = run_tour(plan, home=home, now=datetime.now(UTC), console=console, progress=progress)
    return Outcome(msgspec.to_builtins(made), lambda where: show_tour(made, where))


def _sessions(seed: int, quick: bool, out: Path, home: Path | None) -> Outcome:
    from pipelines.demo.session_table import show_sessions
    from pipelines.demo.sessions import SessionPlan, run_sessions

    plan = SessionPlan(seed=seed)
    if quick:
        plan = msgspec.structs.replace(plan, first=60, bandit=80, cohort=40, cohorts=2, again=-1, steps=20, effort=0.05)
    result = run_sessions(plan, out=out, home=home, console=console, progress=progress)
    return Outcome(result.summary(), lambda where: show_sessions(result, where))
