"""What a registry knows of a loop beside its models' files: versions, aliases, and the verdicts that moved them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime
from typing import Literal, Protocol

import msgspec

Alias = Literal["champion", "candidate", "baseline"]
ALIASES = ("champion", "candidate", "baseline")


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """One registered version.

    Attributes:
        version: its number, as text.
        run_id: MLflow's run with its files, metrics and plots.
        created_at: when it was registered, UTC.
        tags: its tags without the verdicts.
        kept: ``whole``; ``going`` while its files are removed for their age, and ``gone`` where they were.
    """

    version: str
    run_id: str
    created_at: datetime
    tags: dict[str, str]
    kept: Literal["whole", "going", "gone"] = "whole"


class WrittenVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """One verdict as it stands in the registry.

    Attributes:
        number: position in the loop's history, from 1.
        version: the version it was passed on.
        alias: the alias that was to move; "" for a refusal.
        verdict: ``promoted``, ``refused``, ``rolled_back`` or ``set``.
        reasons: why, in words.
        numbers: the numbers it rests on.
        from_version: where the alias stood (JSON key ``from``); None for nowhere.
        to_version: where it went (``to``); None for nowhere.
        at: when, ISO 8601 UTC.
        by: who asked.
    """

    number: int
    version: str
    alias: str = ""
    verdict: str = "set"
    reasons: list[str] = []
    numbers: dict[str, float | None] = {}
    from_version: str | None = msgspec.field(default=None, name="from")
    to_version: str | None = msgspec.field(default=None, name="to")
    at: str = ""
    by: str = ""


Chosen = Callable[[list[Version], dict[str, str], list[WrittenVerdict]], Collection[str]]
"""Chooses versions by number, from a loop's versions, where its aliases stand, and its verdicts."""


class MovedError(RuntimeError):
    """A verdict rests on what was so no more when it was written; look again and decide again."""


class Charge(Protocol):
    """Keeps them; `stated.StatedCharge` in State, `served.ServedCharge` on a server of MLflow that has no State."""

    def versions(self, loop: str) -> list[Version]:
        """Return the versions, oldest first."""
        ...

    def aliases(self, loop: str) -> dict[str, str]:
        """Return where the aliases stand, {alias: version}."""
        ...

    def verdicts(self, loop: str) -> list[WrittenVerdict]:
        """Return the verdicts, oldest first."""
        ...

    def write(self, loop: str, written: WrittenVerdict) -> None:
        """Keep a verdict and move its alias, if it has one.

        Raises:
            MovedError: the alias stands elsewhere than the verdict says, or another verdict has its number.
        """
        ...

    def registered(self, loop: str) -> None:
        """Take notice of the versions that MLflow has."""
        ...

    def mirror(self) -> None:
        """Tell MLflow what it does not know yet."""
        ...

    def let_go(self, loop: str, chosen: Chosen) -> list[Version]:
        """Mark versions as going that nobody is to load any more, and return all that are going; safe to repeat.

        Raises:
            MovedError: somebody moved an alias meanwhile; nothing was marked.
        """
        ...

    def gone(self, loop: str, version: str) -> None:
        """Mark a version that was going as gone."""
        ...


def moves(verdicts: list[WrittenVerdict], alias: Alias, stands: str | None) -> list[WrittenVerdict]:
    """Return the moves of `alias` that happened, oldest first.

    Args:
        verdicts: a loop's history, oldest first.
        alias: the alias followed.
        stands: where it stands now.

    Returns:
        The verdicts that lead to `stands`; one that was written before a crash and never carried out is left out.
    """
    chain: list[WrittenVerdict] = []
    for written in reversed(verdicts):
        if written.alias == alias and written.to_version == stands:
            chain.append(written)
            stands = written.from_version
    return chain[::-1]


def champions(verdicts: list[WrittenVerdict], champion: str) -> list[str]:
    """Return the versions that a rollback can go back through, as a stack: the `champion` that stands is the last.

    Args:
        verdicts: a loop's history, oldest first.
        champion: the version in charge.
    """
    held: list[str] = []
    for move in moves(verdicts, "champion", champion):
        if move.to_version is None:
            held = []
        elif move.verdict == "rolled_back" and move.to_version in held:
            held = held[: held.index(move.to_version) + 1]
        else:
            held.append(move.to_version)
    return held
