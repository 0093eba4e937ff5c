"""Coming from another system: `decision migrate check`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from rich.console import Console
from rich.markup import escape

from pipelines.commands.outcome import DONE, FAILED, Home, Json, Outcome, command, progress

if TYPE_CHECKING:
    from pipelines.operations.migration.answers import Agreed
    from pipelines.operations.migration.check import Checked

migrate = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown")
_STYLES = {"refused": "red", "differs": "yellow", "told": "dim"}
_HEADS = {"refused": "Would be refused", "differs": "Would be otherwise", "told": "Worth knowing"}
_MOST_SHOWN = 8
"""Findings of a kind that people are shown; ``--json`` has all."""


@migrate.callback()
def about() -> None:
    """Keep `check` a command with a name of its own."""


@migrate.command("check")
@command
def check(
    logs: Annotated[
        Path,
        typer.Option(
            "--from", metavar="LOGS", help="A file, a folder, a pattern, or - for standard input.", show_default=False
        ),
    ],
    loop: Annotated[
        str | None,
        typer.Option("--loop", help="Play it against this loop: its settings, its decisions, the version in charge."),
    ] = None,
    home: Home = None,
    json: Json = False,
) -> Outcome:
    """Play an old log (dsjson, also of several slots) against a loop, and tell what would answer differently.

    Without a loop, a new one with its defaults is asked. Nothing is written. Exit status 1: something would be refused.

    Example: `decision migrate check --from personalizer-logs/ --loop news`
    """
    from pipelines.operations.installation import Installation
    from pipelines.operations.migration.check import check_log
    from pipelines.settings import LoopSettings

    if loop is None:
        found = check_log(logs, LoopSettings(name="new"), None, progress)
    else:
        with Installation.at(home) as parts:
            found = check_log(logs, parts.loop(loop), parts, progress)
    data = msgspec.to_builtins(found)
    return Outcome(data, lambda out: _show(out, found), FAILED if found.refused else DONE)


def _show(out: Console, found: Checked) -> None:
    against = f"{found.loop} ({found.mode})" if found.loop else "a new loop with its defaults"
    slots = f" ({found.decisions} slots)" if found.decisions != found.events else ""
    out.print(f"{found.lines} lines, {found.events} decisions{slots}, against {against}", highlight=False)
    for weight, head in _HEADS.items():
        these = [one for one in found.findings if one.weight == weight]
        if not these:
            continue
        out.print(f"\n[bold {_STYLES[weight]}]{head}[/]")
        for kind in dict.fromkeys(one.kind for one in these):
            alike = [one for one in these if one.kind == kind]
            for one in alike[:_MOST_SHOWN]:
                named = f" ([bold]{escape(one.name)}[/])" if one.name else ""
                first = f"first: {one.first}, {one.example}" if one.example else f"first: {one.first}"
                out.print(
                    f"  {escape(one.says)}{named}: {one.count} ({escape(first)})", highlight=False, soft_wrap=True
                )
            if len(alike) > _MOST_SHOWN:
                out.print(f"  and {len(alike) - _MOST_SHOWN} more of this kind (--json has them)", highlight=False)
            out.print(f"    {escape(alike[0].do)}", highlight=False, soft_wrap=True)
    if found.answers is not None and found.answers.decisions:
        out.print("\n[bold]Answers[/]")
        for line in _answers(found.answers, found.mode):
            out.print(f"  {escape(line)}", highlight=False, soft_wrap=True)
    out.print("\n[bold]Not to be told from this log[/]")
    for line in found.untold:
        out.print(f"  {escape(line)}", highlight=False, soft_wrap=True)


def _answers(answers: Agreed, mode: str) -> list[str]:
    lines = [
        f"{answers.policy}, asked about {answers.decisions} decisions: the drawn action has probability "
        f"{answers.probability:.3f} on average, and had {answers.propensity:.3f}",
    ]
    if answers.distance is not None:
        lines.append(f"of the probability, {answers.distance:.1%} lies on other actions than in the log")
    if answers.same_best is not None:
        lines.append(f"the best action is the same in {answers.same_best:.1%} of {answers.decided} that preferred one")
    elif answers.distributed:
        lines.append("no decision of the log preferred an action, so there is no best one to compare")
    if mode != "online":
        lines.append(f"in mode {mode} the first action is returned, whatever these probabilities are")
    return lines
