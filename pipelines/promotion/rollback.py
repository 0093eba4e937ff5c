"""Take the champion's place back: to the version that held it before, to one that is named, or to the baseline.

It needs the registry alone, neither the tables nor the libraries that read them: going back must not wait for imports.
"""

from __future__ import annotations

from datetime import UTC, datetime

from decision.errors import FieldError
from pipelines.logs import step
from pipelines.registry.charge import WrittenVerdict, champions
from pipelines.registry.registry import Registry


@step("rolled back")
def rollback(
    registry: Registry,
    loop: str,
    *,
    now: datetime,
    by: str,
    reason: str = "",
    to: str | None = None,
    mirror: bool = True,
) -> WrittenVerdict:
    """Give the champion's place back to the version that held it before; without one, to the baseline.

    Args:
        registry: the versions.
        loop: name of the loop.
        now: time of the verdict, UTC.
        by: who asks, for the record.
        reason: why, in words.
        to: another version to go back to.
        mirror: as in `Registry.set_alias`.

    Raises:
        FieldError: there is no champion, or it is `to` already.
        AliasMovedError: the champion changed meanwhile; run it again.
        RegistryError: there is no version `to`.
    """
    champion = registry.aliases(loop).get("champion")
    if champion is None:
        raise FieldError(
            "champion", wanted="a champion to roll back from", got=None, says="there is none to roll back from"
        )
    target = to if to is not None else _before(registry, loop, champion)
    if target == champion:
        raise FieldError("to", wanted="another version than the champion's", got=to)
    reasons = [reason or "rolled back by hand", f"back to {f'version {target}' if target else 'the baseline'}"]
    fields = {"verdict": "rolled_back", "reasons": reasons, "at": now.astimezone(UTC).isoformat(), "by": by}
    return registry.set_alias(loop, "champion", target, fields, expected=champion, mirror=mirror)


def _before(registry: Registry, loop: str, champion: str) -> str | None:
    there = {known.version for known in registry.versions(loop) if known.kept == "whole"}
    earlier = champions(registry.verdicts(loop), champion)[:-1]
    return next((version for version in reversed(earlier) if version in there), None)
