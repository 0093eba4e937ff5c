"""What callers reach who write features of their own decisions."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from pipelines.commands.outcome import Home, Json, Loop, Outcome, Seed, command, progress
from pipelines.operations.installation import Installation


@command
def features(
    loop: Loop,
    home: Home = None,
    version: Annotated[
        str | None, typer.Option("--version", help="Version whose probabilities are pushed (default: the champion).")
    ] = None,
    decisions: Annotated[
        int, typer.Option(min=1, max=10_000, help="Number of latest decisions whose contexts are tried.")
    ] = 300,
    seed: Seed = 1,
    json: Json = False,
) -> Outcome:
    """Show how far each feature, written by whom a decision is about, pushes each action; changes nothing.

    What is written is what others wrote in the latest decisions. The features that the loop declares
    (features.supplied_by_caller) are also written together, with the version's cap and without.

    Example: `decision audit features credit --decisions 1000`
    """
    from pipelines.evaluation.reach import reached

    with Installation.at(home) as parts:
        settings = parts.loop(loop)
        found = reached(
            parts.lake,
            parts.registry,
            settings,
            seed=seed,
            version=version,
            decisions=decisions,
            progress=progress,
        )

    def show(out: Console) -> None:
        title = f"{loop}, version {found.version}: what callers reach, {found.decisions} decisions"
        table = Table("feature", "declared", "action", "as it is", "pushed to", "largest raise", "no cap", title=title)
        for one in [*([found.together] if found.together else []), *found.features]:
            top = one.actions[0]
            table.add_row(
                " + ".join(one.features).replace("[", r"\["),
                "yes" if one.supplied else "",
                top.action.replace("[", r"\["),
                f"{top.own:.3f}",
                f"{top.most:.3f}",
                f"{top.largest:+.3f}",
                "-" if top.uncapped is None else f"{top.uncapped:.3f}",
            )
        out.print(table)
        if found.cap is None:
            out.print(f"version {found.version} has no cap: declare features.supplied_by_caller, and train")

    return Outcome(msgspec.to_builtins(found), show)
