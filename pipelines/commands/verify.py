"""The books of the loops, counted in full."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console

from pipelines.commands.outcome import DONE, FAILED, Home, Json, Outcome, command, progress
from pipelines.operations.installation import Installation


@command
def verify(
    loop: Annotated[str | None, typer.Argument(metavar="[LOOP]", help="Its name (default: every loop).")] = None,
    accept_lake: Annotated[
        bool,
        typer.Option(
            "--accept-lake", help="Go on with the tables as they stand: an older lake was put there on purpose."
        ),
    ] = False,
    home: Home = None,
    json: Json = False,
) -> Outcome:
    """Count every row of the lake, and compare with what `decision top` and the service show without looking at rows.

    The tables' logs are held against what the last night noted of them in State. Exit status 1: a log was cut back or
    replaced, decided is not joined + pending + expired + dropped, or the two counts differ.

    Example: `decision verify news --json`
    """
    from pipelines.interactions.counters import counters
    from pipelines.lake.noted import TABLES, check_noted, note
    from pipelines.state.state import State

    found: dict[str, Any] = {}
    with Installation.at(home) as parts:
        file = parts.settings.state_file
        if file is None or file.is_file():
            with State(parts.settings.state_url) as state:
                if accept_lake:
                    note(state, parts.tables, TABLES, datetime.now(UTC), anew=True)
                check_noted(state, parts.tables, TABLES)
        loops = parts.readable() if loop is None else {loop: parts.loop(loop)}
        for done, (name, settings) in enumerate(sorted(loops.items())):
            progress("loops verified", done, len(loops))
            now = datetime.now(UTC)
            full, quick = (counters(parts.tables, settings, now, in_full=every) for every in (True, False))
            known = {key: value for key, value in msgspec.to_builtins(quick).items() if value not in (None, {})}
            counted: dict[str, Any] = msgspec.to_builtins(full)
            differ = sorted(key for key, value in known.items() if counted[key] != value)
            found[name] = {**counted, "balanced": full.balanced, "differ": differ}
    good = all(entry["balanced"] and not entry["differ"] for entry in found.values())

    def show(out: Console) -> None:
        for name, entry in found.items():
            out.print(f"{name}: {_sentence(entry)}", style="" if entry["balanced"] else "red", highlight=False)

    return Outcome({"loops": found}, show, DONE if good else FAILED)


def _sentence(entry: dict[str, Any]) -> str:
    sums = f"{entry['joined']} joined + {entry['pending']} pending + {entry['expired']} expired"
    dropped = sum(entry["dropped"].values())
    told = [f"{entry['decided']} decided {'=' if entry['balanced'] else 'IS NOT'} {sums} + {dropped} dropped"]
    told.append(f"{entry['outcomes']} outcomes, {entry['late_outcomes']} late, {entry['orphan_outcomes']} orphans")
    if entry["orphan_interactions"]:
        told.append(f"{entry['orphan_interactions']} outlived their decision: run the erasure again")
    if entry["differ"]:
        told.append(f"shown elsewhere with another {', '.join(entry['differ'])}")
    return "; ".join(told)
