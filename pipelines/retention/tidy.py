"""What has become too old goes, and nothing that somebody still needs: the embedded log, versions of the lake, nights.

Each part is safe to repeat and to stop anywhere; several machines may tidy at once. Rows of the lake, verdicts, panels
and proofs of erasure are no parts: they have no age.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from datetime import datetime, timedelta
from typing import Literal

import msgspec

from pipelines.access.keys import unused
from pipelines.files import locked, make_home
from pipelines.guard.store import spent
from pipelines.lake.lake import Lake
from pipelines.lake.schemas import Table
from pipelines.log.protocol import EventLog
from pipelines.log.sqlite.log import LocalLog
from pipelines.logs import step
from pipelines.progress import Progress, counted, silent
from pipelines.registry.charge import Version, WrittenVerdict
from pipelines.registry.registry import Registry
from pipelines.registry.tracking import RegistryError
from pipelines.reports.night import forget_nights
from pipelines.retention.ages import FOR_EVER, longest
from pipelines.retention.erasures import over
from pipelines.retention.leftovers import LOCK, abandoned, old_imports, remove
from pipelines.retention.messages import cuts
from pipelines.retention.versions import unneeded
from pipelines.runs import forget_runs, old_runs
from pipelines.settings import LoopSettings, Settings, load_loops
from pipelines.state.state import State

Part = Literal["log", "lake", "runs", "imports", "versions", "features", "state", "scratch"]
_TABLES: tuple[Table, ...] = ("decisions", "outcomes", "interactions", "dead_letters")


class Gone(msgspec.Struct, frozen=True, kw_only=True):
    """What went of a part of an installation, or would go.

    Attributes:
        part: of the installation.
        number: messages, files, runs, imports, versions, or rows.
        bytes: about what they took.
        held: why nothing went, or less than is old enough; "" where all of that did.
    """

    part: Part
    number: int = 0
    bytes: int = 0
    held: str = ""


class Tidied(msgspec.Struct, frozen=True, kw_only=True):
    """What went, or with `dry_run` would go.

    Attributes:
        parts: what of each part.
        bytes: in all.
        dry_run: nothing was removed.
    """

    parts: list[Gone]
    bytes: int
    dry_run: bool


@step("tidied")
def tidy(
    settings: Settings,
    log: EventLog,
    lake: Lake,
    *,
    now: datetime,
    loop: str | None = None,
    dry_run: bool = False,
    progress: Progress = silent,
) -> Tidied:
    """Remove what is older than the loops' settings keep it; waits for a backup of this home folder that is under way.

    Args:
        settings: the installation.
        log: its event log.
        lake: its tables.
        now: the time, with its UTC offset.
        loop: whose nights, versions and features are looked at; None for those of every loop. What loops share is
            looked at in any case.
        dry_run: remove nothing.
        progress: told of the parts looked at.

    Raises:
        LogError: the log does not answer.
        StorageError: object storage does not answer.
        StateError: State cannot be reached.
        ConflictError: others kept committing to the lake; run it again.
    """
    loops, errors = load_loops(settings)
    unread = "".join(f"the settings of {name} cannot be read" for name in sorted(errors)[:1])
    own = {name: each for name, each in loops.items() if loop in (None, name)}
    work: list[Callable[[], Gone]] = [
        lambda: _log(settings, log, lake, loops, unread, now, dry_run),
        lambda: _lake(lake, loops, unread, dry_run),
        lambda: _runs(settings, own, now, dry_run),
        lambda: _imports(settings, loops, unread, now, dry_run),
        lambda: _versions(settings, own, now, dry_run),
        lambda: _features(settings, own, now, dry_run),
        lambda: _state(settings, loops, unread, now, dry_run),
        lambda: _scratch(settings, now, dry_run),
    ]
    with nullcontext() if dry_run else _alone(settings):
        parts = [each() for each in counted(work, progress, "parts tidied", total=len(work))]
    return Tidied(parts=parts, bytes=sum(part.bytes for part in parts), dry_run=dry_run)


@contextmanager
def _alone(settings: Settings) -> Iterator[None]:
    make_home(settings.root)
    with locked(settings.root / LOCK):
        yield


def _log(
    settings: Settings,
    log: EventLog,
    lake: Lake,
    loops: Mapping[str, LoopSettings],
    unread: str,
    now: datetime,
    dry_run: bool,
) -> Gone:
    if not isinstance(log, LocalLog):
        return Gone(part="log", held="the broker and the forwarder of each spool have retentions of their own")
    days = longest(loops.values(), "log_days")
    if unread or days == FOR_EVER:
        return Gone(part="log", held=unread or "retention.log_days is 0")
    number = size = 0
    held: list[str] = []
    for cut in cuts(settings, log, lake, loops.values(), days=days, now=now):
        messages, taken = log.size_below(cut.topic, cut.partition, cut.before)
        number += messages
        size += taken
        held += [cut.held_by] if cut.held_by else []
        if not dry_run:
            log.trim(cut.topic, cut.partition, cut.before)
    who = ", ".join(sorted(set(held)))
    return Gone(part="log", number=number, bytes=size, held=f"some are yet to be read by {who}" if who else "")


def _lake(lake: Lake, loops: Mapping[str, LoopSettings], unread: str, dry_run: bool) -> Gone:
    days = longest(loops.values(), "lake_days")
    if unread or days == FOR_EVER:
        return Gone(part="lake", held=unread or "retention.lake_days is 0")
    number = size = 0
    for name in _TABLES:
        if not dry_run:
            lake.keep(name, days)
        before = {found.key: found.size for found in lake.storage.list(name)}
        if dry_run:
            gone = {f"{name}/{path}" for path in lake.unneeded(name, retention_hours=24 * days)} & before.keys()
        else:
            lake.vacuum(name, retention_hours=24 * days)
            lake.table(name).cleanup_metadata()
            gone = before.keys() - {found.key for found in lake.storage.list(name)}
        number += len(gone)
        size += sum(before[key] for key in gone)
    return Gone(part="lake", number=number, bytes=size)


def _runs(settings: Settings, loops: Mapping[str, LoopSettings], now: datetime, dry_run: bool) -> Gone:
    ages = {name: loop.retention.runs_days for name, loop in loops.items()}
    old = [run for name, days in ages.items() if days != FOR_EVER for run in old_runs(settings, name, days, now)]
    if not dry_run:
        forget_nights(settings, old)
        forget_runs(settings, old)
    return Gone(part="runs", number=len(old), bytes=sum(len(msgspec.json.encode(run)) for run in old))


def _imports(settings: Settings, loops: Mapping[str, LoopSettings], unread: str, now: datetime, dry_run: bool) -> Gone:
    days = longest(loops.values(), "imports_days")
    if unread or days == FOR_EVER:
        return Gone(part="imports", held=unread or "retention.imports_days is 0")
    old = old_imports(settings, days, now)
    if not dry_run:
        from pipelines.formats.store import remove_import

        for name in old:
            remove_import(settings, name)
    return Gone(part="imports", number=len(old), bytes=sum(old.values()))


def _versions(settings: Settings, loops: Mapping[str, LoopSettings], now: datetime, dry_run: bool) -> Gone:
    registry = Registry(settings)
    if not registry.is_stated:
        return Gone(part="versions", held="MLflow's server says alone who is in charge: DECISION_STATE is not set")
    number = size = 0
    try:
        for name, loop in loops.items():
            for version in _going(registry, loop, now, dry_run):
                number += 1
                size += registry.size(name, version)
                if not dry_run:
                    registry.remove(name, version)
    except RegistryError as error:  # the next night goes on
        return Gone(part="versions", number=number, bytes=size, held=str(error))
    return Gone(part="versions", number=number, bytes=size)


def _going(registry: Registry, loop: LoopSettings, now: datetime, dry_run: bool) -> list[Version]:
    days = loop.retention.versions_days
    before = now - timedelta(days=days)
    found: list[str] = []

    def chosen(known: list[Version], aliases: dict[str, str], verdicts: list[WrittenVerdict]) -> Collection[str]:
        found[:] = [] if days == FOR_EVER else unneeded(known, aliases, verdicts, before)
        return () if dry_run else found

    going = registry.let_go(loop.name, chosen)
    return going + [version for version in registry.versions(loop.name) if dry_run and version.version in found]


def _features(settings: Settings, loops: Mapping[str, LoopSettings], now: datetime, dry_run: bool) -> Gone:
    aged = {name: loop.retention.features_days for name, loop in loops.items() if loop.features.enabled}
    aged = {name: days for name, days in aged.items() if days != FOR_EVER}
    from pipelines.features.copies import Copies  # imports arrays
    from pipelines.features.history import History
    from pipelines.features.views import STREAM_SCHEMA

    number = size = 0
    for name, days in aged.items():
        rows, taken = History(Copies(settings, name), STREAM_SCHEMA).trim(now - timedelta(days=days), dry_run=dry_run)
        number += rows
        size += taken
    return Gone(part="features", number=number, bytes=size)


def _state(settings: Settings, loops: Mapping[str, LoopSettings], unread: str, now: datetime, dry_run: bool) -> Gone:
    file = settings.state_file
    if unread or (file is not None and not file.is_file()):
        return Gone(part="state", held=unread)
    seen, asked = longest(loops.values(), "access_days"), longest(loops.values(), "log_days")
    with State(settings.state_url) as state:
        old = {} if seen == FOR_EVER else unused(state, seen, now)
        old |= {} if asked == FOR_EVER else over(state, asked, now)
        for name in loops:
            old |= spent(state, name)
        if not dry_run:
            state.forget(old)
    return Gone(part="state", number=len(old), bytes=sum(old.values()))


def _scratch(settings: Settings, now: datetime, dry_run: bool) -> Gone:
    number = size = 0
    for path, taken in abandoned(settings, now):
        number += 1
        size += taken
        if not dry_run:
            remove(path)
    return Gone(part="scratch", number=number, bytes=size)
