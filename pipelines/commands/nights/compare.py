"""Two versions of a loop side by side."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from pipelines.commands.outcome import Home, Json, Outcome, command, progress
from pipelines.operations.installation import Installation

_SHOWN = 8


@command
def compare(
    first: Annotated[str, typer.Argument(metavar="V1", help="The version to compare with.", show_default=False)],
    second: Annotated[str, typer.Argument(metavar="V2", help="The version whose lift is told.", show_default=False)],
    loop: Annotated[str, typer.Option("--loop", help="Name of the loop.", show_default=False)],
    home: Home = None,
    json: Json = False,
) -> Outcome:
    """Put two versions side by side: training, settings, value on the same held-out decisions, and where they differ.

    Changes nothing. The difference of the values is paired, with its 95% interval; segments' intervals hold together.

    Example: `decision compare 3 4 --loop news`
    """
    from pipelines.evaluation.comparing import compare_versions

    with Installation.at(home) as parts:
        settings = parts.loop(loop)
        found = compare_versions(parts.lake, parts.registry, settings, first, second, progress=progress)

    def show(out: Console) -> None:
        table = Table("", f"version {first}", f"version {second}", title=f"{loop}, {found.rows} held-out decisions")
        one, other = found.trained
        table.add_row("trained", one.created_at[:16], other.created_at[:16])
        table.add_row("decisions", f"{one.sampled:,} of {one.rows:,}", f"{other.sampled:,} of {other.rows:,}")
        table.add_row("from", one.first_ts[:16], other.first_ts[:16])
        table.add_row("to", one.last_ts[:16], other.last_ts[:16])
        table.add_row("value", *(f"{v.value:.4f} [{v.low:.4f}, {v.high:.4f}]" for v in found.values))
        for setting in found.settings:
            table.add_row(setting.name, _short(setting.first), _short(setting.second))
        out.print(table)
        lift = found.lift
        out.print(
            f"lift of {second} over {first}: {lift.value:+.4f} [{lift.low:+.4f}, {lift.high:+.4f}]; both find the same "
            f"action best in {found.same_choice:.1%} of the decisions, and draw otherwise in {found.apart:.1%}",
            highlight=False,
        )
        for reason in lift.reasons:
            out.print(f"  doubt: {reason}", highlight=False, markup=False)
        drawn = Table("action", f"drawn by {first}", f"by {second}")
        for share in found.actions[:_SHOWN]:
            drawn.add_row(share.action_id, f"{share.first:.1%}", f"{share.second:.1%}")
        where = Table("segment", "decisions", "draw otherwise", "lift", "interval")
        for part in found.segments[:_SHOWN]:
            lift = part.lift
            interval = f"[{lift.low:+.4f}, {lift.high:+.4f}]"
            where.add_row(part.of, f"{part.rows:,}", f"{part.apart:.1%}", f"{lift.value:+.4f}", interval)
        for shown in (drawn, where):
            if shown.row_count:
                out.print(shown)

    return Outcome(msgspec.to_builtins(found), show)


def _short(value: Any) -> str:
    """Return a setting with six digits at most; nothing where a version has none."""
    return "" if value is None else f"{value:,.6g}" if isinstance(value, float) else str(value)
