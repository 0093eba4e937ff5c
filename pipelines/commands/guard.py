"""`decision guard`: one aggregation of a loop's rollout, an operator's hand on it, and a look at where it stands."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console

from pipelines.commands.engines import RayAddress, Where, Workers, opened
from pipelines.commands.outcome import DONE, FAILED, Home, Json, Loop, Outcome, command, progress, who
from pipelines.operations.installation import Installation


@command
def guard(
    loop: Loop,
    home: Home = None,
    cap: Annotated[
        float | None,
        typer.Option("--cap", min=0.0, max=1.0, help="Cap the candidate's weight from now on; 1 removes the cap."),
    ] = None,
    stop: Annotated[bool, typer.Option("--stop", help="Stop serving the candidate at once.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Resume after a stop or a freeze.")] = False,
    replay: Annotated[
        bool, typer.Option("--replay", help="Recompute the evidence from the lake and compare it bit for bit.")
    ] = False,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Plot the weight over time to FILE.svg, .html or .png.")
    ] = None,
    engine: Where = "local",
    ray_address: RayAddress = None,
    workers: Workers = None,
    json: Json = False,
) -> Outcome:
    """Aggregate new evidence, move the candidate's weight as far as the evidence allows, and show the guard.

    Run it after `decision join` as often as the weight should move; `decision nightly` does it too. The log's
    partitions are read where `--engine` says. --cap, --stop and --resume take effect at once, without an aggregation.

    Example: `decision guard news --plot rollout.svg`
    """
    from pipelines.guard.report import guard_table, report
    from pipelines.guard.report import plot as draw
    from pipelines.guard.store import GuardStore

    if stop and resume:
        raise typer.BadParameter("--stop and --resume exclude each other", param_hint="--stop")
    if replay and (stop or resume or cap is not None):
        raise typer.BadParameter("--replay changes nothing and goes alone", param_hint="--replay")
    with Installation.at(home) as parts:
        settings, now = parts.loop(loop), datetime.now(UTC)
        if replay:
            from pipelines.guard.replay import replay as again

            done = again(parts.settings, settings, parts.lake, progress)
            status = DONE if done.same else FAILED

            def tell(out: Console) -> None:
                same = "the same, bit for bit" if done.same else f"not the same: {', '.join(done.differs)}"
                out.print(f"{loop}: {done.decisions} decisions folded again, {same}")

            return Outcome(msgspec.to_builtins(done), tell, status)
        if stop or resume or cap is not None:
            from pipelines.guard.operate import operate  # without the step's libraries: an operator's word is at once

            asked = True if stop else False if resume else None
            state = operate(parts.settings, settings, now=now, by=who(), cap=cap, stop=asked)
        else:
            from pipelines.guard.step import guard as run

            where = opened(engine, ray_address, workers)
            state = run(parts.settings, settings, parts.lake, parts.registry, now, progress, engine=where)
        history = [] if state.status == "off" else GuardStore(parts.settings, loop).moves()
    seen = report(state, history)
    if plot is not None:
        draw(history, loop, plot)
    return Outcome(msgspec.to_builtins(seen), lambda out: out.print(guard_table(seen)))
