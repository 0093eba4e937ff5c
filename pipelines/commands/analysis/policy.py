"""A policy before it is replayed: `decision policy check`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Column, Table

from pipelines.commands.analysis.given import policy_of, rows_of
from pipelines.commands.outcome import DONE, FAILED, Home, Json, Outcome, command
from pipelines.operations.installation import Installation

if TYPE_CHECKING:
    from pipelines.replay.policies.trial import Trial

policy = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown")
_SHOWN = 200
_MOST_ACTIONS = 6


@policy.callback()
def about() -> None:
    """Keep `check` a command with a name of its own."""


@policy.command("check")
@command
def check(
    given: Annotated[
        str,
        typer.Argument(
            metavar="POLICY",
            help="champion, uniform, first, ranking, a version, file.py:function, rules.toml, or a model's folder.",
            show_default=False,
        ),
    ],
    loop: Annotated[str, typer.Option("--loop", help="The log: a loop, or the name of an import.", show_default=False)],
    home: Home = None,
    json: Json = False,
) -> Outcome:
    """Try a policy on ten logged decisions, and show what it was asked, what it answered, and every mistake.

    `file.py:function`, or `module:function`, is a function of the context and the actions of one decision, both as in a
    request; it returns an action's id, a list of probabilities, or {id: probability}. A function of one argument
    `columns` takes an Arrow table of many decisions, and one of `batch` flattened features. Rules are conditions in a
    `.toml` file. A folder with a model has the files of a version. Exit status 1: there is a mistake.

    Examples: `decision policy check mine:policy --loop news`, `decision policy check phones.toml --loop news`
    """
    from pipelines.replay.policies.trial import few_rows, tried
    from pipelines.replay.source import Cut

    with Installation.at(home) as parts:
        source = rows_of(parts, loop, Cut(), None)[0]
        spec = policy_of(parts, loop, given)
        found = tried(spec.load(), few_rows(source), name=spec.name, log=loop)
    return Outcome(msgspec.to_builtins(found), lambda out: _show(found, out), FAILED if found.mistakes else DONE)


def _show(found: Trial, out: Console) -> None:
    columns = (Column(name, overflow="fold") for name in ("event", "context", "drawn", "probabilities", "weight"))
    table = Table(*columns, title=f"{found.policy} on {found.log}")
    for row in found.rows:
        answer = "mistake"
        if row.probabilities is not None:
            pairs = zip(row.actions, row.probabilities, strict=True)
            likely = sorted(((one["id"], share) for one, share in pairs), key=lambda pair: -pair[1])
            answer = ", ".join(f"{name} {share:.3g}" for name, share in likely[:_MOST_ACTIONS] if share > 0)
            answer += " ..." if sum(share > 0 for _, share in likely) > _MOST_ACTIONS else ""
        context = json.dumps(row.context, ensure_ascii=False)  # with spaces, at which a table breaks it
        short = context if len(context) <= _SHOWN else context[: _SHOWN - 3] + "..."
        weight = "" if row.weight is None else f"{row.weight:.3g}"
        # Texts of others' are no markup.
        table.add_row(*(each.replace("[", r"\[") for each in (row.event_id, short, row.drawn, answer, weight)))
    out.print(table)
    for mistake in found.mistakes:
        out.print(f"mistake: {mistake}", style="red", markup=False, highlight=False)
    for remark in found.remarks:
        out.print(f"worth a look: {remark}", markup=False, highlight=False)
    if not found.mistakes:
        out.print(f"no mistakes in {len(found.rows)} rows", highlight=False)
