"""Features of a loop's subjects: uploads, and what the stream of outcomes makes of them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from pipelines.commands.outcome import Home, Json, Loop, Outcome, command, progress
from pipelines.operations.installation import Installation


@command
def features(
    loop: Loop,
    upload: Annotated[
        Path | None, typer.Option(help="Upload a Parquet or CSV file with subject_id, features and optionally ts.")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="With --upload: discard all earlier uploads.")] = False,
    subject: Annotated[str | None, typer.Option(help="Show what a decision about this subject would see now.")] = None,
    home: Home = None,
    json: Json = False,
) -> Outcome:
    """Upload features of subjects, update the streaming ones, and show what a decision would see.

    Requires `[features] enabled = true` in loop.toml.

    Example: `decision features news --upload customers.parquet --subject c-17`
    """
    with Installation.at(home) as parts:
        settings = parts.loop(loop)
        if not settings.features.enabled:
            raise typer.BadParameter(f"loop {loop!r} has no features; set [features] enabled = true", param_hint="LOOP")
        from pipelines.features.store import Features  # imports Feast, which takes seconds

        progress("subjects uploaded", 0)
        store = Features(parts.settings, settings)
        try:
            rows = 0 if upload is None else store.load_subjects(upload, now=datetime.now(UTC), replace=replace)
            changed = parts.push_features(progress)
            found = None if subject is None else store.online(subject)
            names = store.names()
        finally:
            store.close()
    text = f"{rows} rows uploaded, {changed} subjects changed by the stream; features: {', '.join(names) or 'none'}"
    if found is not None:
        text += f"\n{subject}: {found or 'nothing'}"
    result = {"loop": loop, "uploaded": rows, "changed": changed, "features": names, "subject": found}
    return Outcome(result, lambda console: console.print(text))
