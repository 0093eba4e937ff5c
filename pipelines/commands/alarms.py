"""What a loop's nights raised, and clearing it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import msgspec
import typer
from rich.console import Console

from pipelines.commands.outcome import Home, Json, Loop, Outcome, command, who
from pipelines.operations.installation import Installation


@command
def alarms(
    loop: Loop,
    clear: Annotated[
        list[str] | None,
        typer.Option("--clear", help="Key of an alarm, as it is shown, or `all`; quiet until it comes back."),
    ] = None,
    home: Home = None,
    json: Json = False,
) -> Outcome:
    """Show the alarms that the loop's last night raised, and clear those that are known.

    Example: `decision alarms news --clear untried:archive`
    """
    from pipelines.evaluation.standing import clear as clear_alarms
    from pipelines.evaluation.standing import standing

    with Installation.at(home) as parts:
        parts.loop(loop)
        if clear:
            found = clear_alarms(parts.settings, loop, clear, now=datetime.now(UTC), by=who())
        else:
            found = standing(parts.settings, loop)

    def show(out: Console) -> None:
        for alarm in found.alarms:
            out.print(f"{alarm.key}: {alarm.text}", highlight=False, markup=False)
            since = found.since.get(alarm.key)
            when = "" if since is None else f"since the night {since.night} ({since.at[:16]} UTC); "
            out.print(f"  {when}what to do: {alarm.to_do}", highlight=False, markup=False)
        if not found.alarms:
            out.print("no alarm stands" if found.night else "no night has looked for alarms yet")
        last = {one.key: one for one in found.clearings}
        for key in found.cleared:
            told = f" by {last[key].by}, {last[key].at[:16]} UTC" if key in last else ""
            out.print(f"cleared: {key}{told}", highlight=False, markup=False)

    data = msgspec.to_builtins(found) | {"alarms": msgspec.to_builtins(found.alarms)}
    del data["found"]
    return Outcome(data, show)
