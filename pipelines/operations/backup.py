"""A copy of a running installation, from which another one goes on: databases, tables and files that fit together.

What knows of something is copied before what it knows of. So State comes before the versions that it puts in charge,
memories and features before the log that they have read, the lake before the log whose messages it has, and a copy is
at most behind in what it can catch up with. Each database is one moment of itself, the lake one moment of all tables,
and the audit log, its heads and State are one moment of all three: of its last entry the head may still be to come.
Nobody waits: SQLite's backup reads beside writers, and files of the lake never change. Only tidying does, and auditors
while those three are copied.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import re
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from decision.errors import FieldError, Words
from pipelines.files import copy_file, locked, make_private, room_for, write_atomically
from pipelines.interactions.counters import counters
from pipelines.lake.copies import copy_tables
from pipelines.lake.tables import Tables
from pipelines.logs import step
from pipelines.progress import Progress, counted, silent
from pipelines.retention.leftovers import LOCK, SCRATCH
from pipelines.settings import LoopSettings, Settings, list_loops

if TYPE_CHECKING:
    from pipelines.lake.schemas import Table

NOTE = "backup.json"
HOME = "home"
MAX_NOTE_BYTES = 256 << 20
TABLES: tuple[Table, ...] = ("interactions", "outcomes", "decisions", "dead_letters")
COUNTED = ("decided", "joined", "pending", "expired", "dropped", "outcomes", "duplicates_seen", "dead_letters")
"""Counters that are the same however a loop is set up."""

_PARTS = {
    "log": "its replicas, and a retention longer than the oldest backup of the lake is old",
    "files": "versions of the bucket, or a copy of all objects, `_delta_log` last",
    "state": "`pg_dump`, or SQLite's `.backup`",
    "tracking_uri": "`pg_dump` of MLflow's tables, then a copy of its artifacts; SQLite's `.backup` of a file",
    "online": "nothing: it is filled again",
    "governance": "the database's own backup",
}
_SQLITE = b"SQLite format 3\x00"
_BESIDE = re.compile(r".*-(wal|shm|journal)")
_NEVER = ("cache", "metrics")
_LAST = ("mlflow.db", "models")
_GOVERNANCE = "governance"
_BUSY_S = 30.0
_ATTEMPTS = 20


class Copied(msgspec.Struct, frozen=True):
    """A file of a backup: its bytes, and their SHA-256."""

    size: int
    sha256: str


class Backup(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a backup holds.

    Attributes:
        taken_at: when it was begun, UTC.
        release: of the software that took it.
        files: by their paths below ``home``.
        tables: version of each table of the lake; empty where the lake is elsewhere.
        loops: what each loop's counters were in the copy of the lake, counted in full.
        elsewhere: what is not in it, by the setting that says where it is, and by what to back it up instead.
    """

    taken_at: datetime
    release: str
    files: dict[str, Copied]
    tables: dict[str, int]
    loops: dict[str, dict[str, Any]]
    elsewhere: dict[str, str]

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(file.size for file in self.files.values())


@step("backed up")
def backup(settings: Settings, path: Path, *, now: datetime, progress: Progress = silent) -> Backup:
    """Copy an installation while it runs, into a folder that is there only once it is whole.

    Args:
        settings: the installation.
        path: the folder; it does not exist, and is not in the home folder.
        now: the time, UTC.
        progress: told of the files copied.

    Raises:
        FieldError: `path` exists, or lies in the home folder; there is no home folder.
        BlockingIOError: another backup writes there.
        sqlite3.Error: a database is damaged or does not answer.
        OSError: a file cannot be read or written.
        NoMomentError: others kept committing to the lake; try again.
    """
    path, root = path.absolute(), settings.root
    if not root.is_dir():
        raise FieldError("home", wanted="the home folder of an installation", got=str(root))
    if path.exists():
        raise FieldError("path", wanted="a folder that does not exist yet", got=str(path))
    if path.resolve().is_relative_to(root.resolve()):
        raise FieldError("path", wanted="a folder outside of the home folder", got=str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    made = partial_of(path)
    lock = path.with_name(f".{path.name}.lock")
    with locked(lock, wait=False), locked(root / LOCK), room_for(path), removed_unless_whole(made):
        for _ in range(_ATTEMPTS):
            shutil.rmtree(made, ignore_errors=True)  # of a backup that was killed
            made.mkdir(mode=0o700)
            sealed = _sealed(settings)
            note = _copied(settings, made, now, progress)
            if _sealed(settings) == sealed:
                break
        else:
            raise FieldError(
                "home", wanted="without erasures for as long as it takes", got=Words("one after the other")
            )
        write_atomically(made / NOTE, msgspec.json.format(msgspec.json.encode(note)))
        os.rename(made, path)
    lock.unlink(missing_ok=True)
    return note


@contextmanager
def removed_unless_whole(made: Path) -> Iterator[None]:
    """Remove a folder that does not become whole, and give its room back; one that is killed stays for the next."""
    try:
        yield
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise


def partial_of(path: Path) -> Path:
    """Return the folder that becomes `path` once it is whole."""
    return path.with_name(f".{path.name}.partial")


def elsewhere_of(settings: Settings) -> dict[str, str]:
    """Return what of an installation is not in its home folder, by setting, and by what to back it up."""
    stays = {"log": "local:", "files": "", "state": "", "tracking_uri": "", "online": "", "governance": ""}
    found = {name for name, embedded in stays.items() if getattr(settings, name) != embedded}
    if settings.state_file is not None and not settings.state_file.is_relative_to(settings.root):
        found.add("state")
    return {name: advice for name, advice in _PARTS.items() if name in found}


def _copied(settings: Settings, made: Path, now: datetime, progress: Progress) -> Backup:
    root, target = settings.root, made / HOME
    away = elsewhere_of(settings)
    tables: dict[str, int] = {}
    together, others = _ordered(settings, away)
    with _no_audits(root / _GOVERNANCE / "governance.db"):
        for name in counted(together, progress, "databases copied"):
            _copy(root / name, target / name)
    for name in counted(others, progress, "parts copied"):
        if name == "lake":
            tables = copy_tables(Tables(settings.lake_url), TABLES, target / name, progress)
        else:
            _copy(root / name, target / name)
    files = {each.relative_to(target).as_posix(): _described(each) for each in _regular(target)}
    copy = Tables(target / "lake")
    loops = {} if not tables else {name: books(copy, name, now) for name in list_loops(settings)}
    release = importlib.metadata.version("decision-service")
    return Backup(taken_at=now, release=release, files=files, tables=tables, loops=loops, elsewhere=away)


def books(tables: Tables, loop: str, now: datetime) -> dict[str, Any]:
    """Return the counters of a loop, counted in full, that do not depend on how it is set up."""
    found = msgspec.to_builtins(counters(tables, LoopSettings(name=loop), now, in_full=True))
    return {name: found[name] for name in COUNTED}


def _ordered(settings: Settings, away: dict[str, str]) -> tuple[list[str], list[str]]:
    """Return the paths to copy, files and folders of the home folder, in order: those of one moment, and the others."""
    file = settings.state_file
    state = [] if file is None or not file.is_relative_to(settings.root) else [str(file.relative_to(settings.root))]
    log = settings.spool_path.name
    first = [_GOVERNANCE, *state]  # heads are noted in State, so they are there before it
    last = ["lake"] * ("files" not in away) + [log] * ("log" not in away) + [*_LAST]
    kept = (*first, *last, *_NEVER, log, LOCK, "lake")
    others = sorted(
        entry.name
        for entry in settings.root.iterdir()
        if entry.name not in kept and not SCRATCH.fullmatch(entry.name) and not _BESIDE.fullmatch(entry.name)
    )
    there = [name for name in first if (settings.root / name).exists()]
    return there, [name for name in (*others, *last) if name == "lake" or (settings.root / name).exists()]


@contextmanager
def _no_audits(database: Path) -> Iterator[None]:
    """Let nobody write to the audit log meanwhile: no head is noted, and no key made, that the copy does not tell of.

    Raises:
        sqlite3.Error: the database is damaged, or somebody else holds it for half a minute.
    """
    if not database.is_file():
        yield
        return
    address = f"{database.as_uri()}?mode=rw"
    heads = database.with_name("anchors.jsonl")
    with (
        closing(sqlite3.connect(address, uri=True, timeout=_BUSY_S, isolation_level=None)) as held,
        ExitStack() as noting,
    ):
        held.execute("BEGIN IMMEDIATE")
        if heads.is_file():
            noting.enter_context(locked(heads))  # a line is copied whole
        yield


def _copy(source: Path, target: Path) -> None:
    for each in _regular(source):
        to = target / each.relative_to(source) if source.is_dir() else target
        try:
            with each.open("rb") as file:
                is_database = file.read(len(_SQLITE)) == _SQLITE
            (copy_database if is_database else copy_file)(each, to)
        except FileNotFoundError:  # replaced or tidied up meanwhile
            continue


def copy_database(source: Path, target: Path) -> None:
    """Copy an SQLite database as it is at one moment, beside whoever writes to it; it is on disk when this returns.

    Raises:
        sqlite3.Error: it is damaged, or does not answer.
    """
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    make_private(target)
    with (
        # to write, too: who was killed in a commit left what the next one has to take back
        closing(sqlite3.connect(f"{source.as_uri()}?mode=rw", uri=True, timeout=30.0)) as reading,
        closing(sqlite3.connect(target)) as writing,
    ):
        reading.backup(writing)  # in one step: a writer between two would have it begin anew
        (state,) = writing.execute("PRAGMA quick_check(1)").fetchone()
        if state != "ok":
            raise sqlite3.DatabaseError(f"{source}: {state}")
        writing.execute("PRAGMA journal_mode = DELETE")  # one file, whose every byte is in it
    descriptor = os.open(target, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _regular(top: Path) -> Iterator[Path]:
    """Yield the files below a folder, or the file, without what is half written or stands beside a database."""
    if top.is_file():
        yield top
        return
    seen: set[tuple[int, int]] = set()
    for folder, folders, names in os.walk(top, followlinks=True):
        about = os.stat(folder)
        if (about.st_dev, about.st_ino) in seen:
            folders.clear()
            continue
        seen.add((about.st_dev, about.st_ino))
        folders[:] = sorted(name for name in folders if not SCRATCH.fullmatch(name))
        for name in sorted(names):
            path = Path(folder, name)
            if not SCRATCH.fullmatch(name) and not _BESIDE.fullmatch(name) and path.is_file():
                yield path


def _described(path: Path) -> Copied:
    with path.open("rb") as file:
        return Copied(path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())


def _sealed(settings: Settings) -> set[str]:
    """Return the proofs of erasure there are, each of which says that nothing of a subject is in any part."""
    return {path.name for path in settings.root.glob("erasures/*")}
