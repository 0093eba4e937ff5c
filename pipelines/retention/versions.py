"""Versions of models that nobody goes back to any more."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import UTC, datetime

from pipelines.registry.charge import Version, WrittenVerdict, champions
from pipelines.registry.proven import last_proven

KEPT_VERSIONS = 30
"""So many of a loop's latest versions stay however old they are: trainings go on from some, and people compare them."""


def unneeded(
    known: list[Version], aliases: Mapping[str, str], verdicts: list[WrittenVerdict], before: datetime
) -> Collection[str]:
    """Return the versions that were last made, in charge, rolled out or judged before a time, and that nobody needs.

    Needed are those that aliases stand at, the champion's predecessor, which a rollback goes back to, the version that
    the gate measures losses from, and the latest `KEPT_VERSIONS`.

    Args:
        known: a loop's versions, oldest first.
        aliases: where they stand.
        verdicts: the loop's history, oldest first.
        before: the time.
    """
    needed: set[str | None] = set(aliases.values())
    champion = aliases.get("champion")
    if champion is not None:
        needed.update(champions(verdicts, champion)[-2:])
    needed.add(last_proven(verdicts, champion).version)
    whole = [version for version in known if version.kept == "whole"]
    last = {version.version: version.created_at.astimezone(UTC) for version in whole}
    for written in verdicts:
        at = datetime.fromisoformat(written.at).astimezone(UTC) if written.at else None
        for named in (written.version, written.from_version, written.to_version):
            if at is not None and named is not None and named in last:
                last[named] = max(last[named], at)
    return [
        version.version
        for version in whole[:-KEPT_VERSIONS]
        if version.version not in needed and last[version.version] < before
    ]
