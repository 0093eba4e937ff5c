"""How the loops stand: who is in charge, what was counted, how far ingestion and forwarding are behind."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime

import msgspec
from rich import box
from rich.console import Group, RenderableType
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from pipelines.evaluation.agreement import Agreement, last_agreement
from pipelines.evaluation.standing import Alarm, standing
from pipelines.ingestion.behind import ends_of, to_ingest
from pipelines.interactions.counters import Counters, counters
from pipelines.interactions.doubtful import waiting_doubts
from pipelines.lake.moment import NoMomentError
from pipelines.log.protocol import LogError
from pipelines.operations.installation import Installation
from pipelines.retention.space import Room, disk_bytes
from pipelines.settings import LOOP_NAME, LoopSettings, load_loops

_NUMBERS = ("decided", "joined", "pending", "expired", "dropped", "late")


class LoopStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One loop.

    Attributes:
        loop: its name.
        mode: its mode; "" when its settings cannot be read.
        champion: version in charge; None for the baseline.
        versions: number of versions.
        last_verdict: the latest verdict, in words; "" without one.
        counters: its counters; None when its settings cannot be read, or the lake had no moment at which to count.
        error: why its settings cannot be read, "" when they can.
        doubtful: outcomes in the lake, or on their way there, that say less than was meant, by the field in doubt.
        alarms: what its last night raised and nobody has cleared.
        agreement: in apprentice mode, how often its newest version would have done what the application did.
    """

    loop: str
    mode: str
    champion: str | None
    versions: int
    last_verdict: str
    counters: Counters | None
    error: str = ""
    doubtful: dict[str, int] = {}
    alarms: list[Alarm] = []
    agreement: Agreement | None = None


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """An installation at one moment.

    Attributes:
        at: when, ISO 8601 UTC.
        loops: its loops.
        to_ingest: messages of each topic that are on the log and not in the lake; None when the log is away.
        to_forward: messages in the spool that the log does not have yet; None where the spool is the log.
        disk: bytes in the home folder, by part of the installation.
    """

    at: str
    loops: list[LoopStatus]
    to_ingest: dict[str, int] | None
    to_forward: int | None
    disk: dict[Room, int] = {}


def look(parts: Installation, disk: dict[Room, int] | None = None) -> Look:
    """Return how the installation stands now, with the space that it took as of a moment ago; None looks now."""
    now = datetime.now(UTC)
    loops, errors = load_loops(parts.settings)
    return Look(
        at=now.isoformat(timespec="seconds"),
        loops=[_loop(parts, name, loops.get(name), errors.get(name, ""), now) for name in sorted(loops | errors)],
        to_ingest=_to_ingest(parts),
        to_forward=_to_forward(parts),
        disk=disk_bytes(parts.settings) if disk is None else disk,
    )


def status_table(seen: Look) -> RenderableType:
    """Return `seen` for a terminal."""
    table = Table(box=box.SIMPLE_HEAD, title=f"{seen.at}", title_justify="left")
    for name in ("loop", "in charge", "mode"):
        table.add_column(name)
    for name in _NUMBERS:
        table.add_column(name, justify="right")
    table.add_column("last verdict")
    for entry in seen.loops:
        if entry.error:
            table.add_row(entry.loop, *["-"] * 8, Text("does not run", style="red"))
            continue
        table.add_row(
            entry.loop,
            f"version {entry.champion}" if entry.champion else "baseline",
            entry.mode,
            *_numbers(entry.counters),
            entry.last_verdict,
        )
    behind = "the log is away" if seen.to_ingest is None else _words(seen.to_ingest)
    forward = "" if seen.to_forward is None else f"   to forward: {seen.to_forward}"
    errors = [Text(_whole(entry), style="red") for entry in seen.loops if entry.error]
    alarms = [
        Text(f"{entry.loop}: {alarm.key}: {alarm.text}", style="red") for entry in seen.loops for alarm in entry.alarms
    ]
    doubts = [
        Text(f"{entry.loop}: doubtful outcomes, by field: {_words(entry.doubtful)}", style="yellow")
        for entry in seen.loops
        if entry.doubtful
    ]
    agreed = [Text(f"{entry.loop}: {entry.agreement}") for entry in seen.loops if entry.agreement is not None]
    disk = ", ".join(f"{part} {decimal(size)}" for part, size in seen.disk.items() if size)
    return Group(table, *errors, *agreed, *alarms, *doubts, f"to ingest: {behind}{forward}", f"on disk: {disk}")


def _whole(entry: LoopStatus) -> str:
    """Return why a loop does not run, with its name; a column of the table would cut it off."""
    return entry.error if entry.loop in entry.error else f"{entry.loop}: {entry.error}"


def _numbers(counted: Counters | None) -> list[str]:
    if counted is None:
        return ["?"] * len(_NUMBERS)
    numbers = (counted.decided, counted.joined, counted.pending, counted.expired)
    late = "-" if counted.late_outcomes is None else str(counted.late_outcomes)
    return [*map(str, (*numbers, sum(counted.dropped.values()))), late]


def _counters(parts: Installation, settings: LoopSettings, now: datetime) -> Counters | None:
    try:
        return counters(parts.tables, settings, now)
    except NoMomentError:
        return None


def _loop(parts: Installation, name: str, settings: LoopSettings | None, error: str, now: datetime) -> LoopStatus:
    registry = parts.registry
    if not LOOP_NAME.fullmatch(name):  # a folder that no loop can have, so no version belongs to it either
        return LoopStatus(loop=name, mode="", champion=None, versions=0, last_verdict="", counters=None, error=error)
    counted = None if settings is None else _counters(parts, settings, now)
    verdicts = registry.verdicts(name)
    last = verdicts[-1] if verdicts else None
    return LoopStatus(
        loop=name,
        mode="" if settings is None else settings.mode,
        champion=registry.aliases(name).get("champion"),
        versions=sum(version.kept == "whole" for version in registry.versions(name)),
        last_verdict="" if last is None else f"{last.verdict.replace('_', ' ')}, version {last.version}",
        counters=counted,
        error=error,
        doubtful=_doubtful(parts, settings, counted),
        alarms=standing(parts.settings, name).alarms,
        agreement=last_agreement(parts.settings, name)
        if settings is not None and settings.mode == "apprentice"
        else None,
    )


def _doubtful(parts: Installation, settings: LoopSettings | None, counted: Counters | None) -> dict[str, int]:
    found = Counter({} if counted is None else counted.doubtful)
    if settings is not None:
        with suppress(LogError):
            found += waiting_doubts(parts.log, parts.tables, settings)
    return dict(sorted(found.items()))


def _to_ingest(parts: Installation) -> dict[str, int] | None:
    try:
        return to_ingest(ends_of(parts.log), parts.tables)
    except LogError:
        return None


def _to_forward(parts: Installation) -> int | None:
    if parts.settings.log == "local:" or not parts.settings.spool_path.is_file():
        return None
    from pipelines.ingestion.forward import to_forward
    from pipelines.log.sqlite.log import LocalLog

    source = LocalLog(parts.settings.spool_path)
    try:
        return to_forward(source)
    finally:
        source.close()


def _words(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {topic}" for topic, count in counts.items())
