"""What a loop's nights raised, and clearing it."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer
from rich.console import Console

from pipelines.commands.outcome import Home, Json, Loop, Outcome, command
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
        found = clear_alarms(parts.settings, loop, clear) if clear else standing(parts.settings, loop)

    def show(out: Console) -> None:
        for alarm in found.alarms:
            out.print(f"{alarm.key}: {alarm.text}", highlight=False, markup=False)
        if not found.alarms:
            out.print("no alarm stands" if found.night else "no night has looked for alarms yet")
        if found.cleared:
            out.print(f"cleared: {', '.join(found.cleared)}", highlight=False, markup=False)

    data = {"night": found.night, "alarms": msgspec.to_builtins(found.alarms), "cleared": found.cleared}
    return Outcome(data, show)
