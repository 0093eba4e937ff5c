"""An installation made from a backup, in another home folder or in place of the one that was lost.

Every byte is checked against the backup's note, and the books of every loop against those that were counted when it was
taken. The home folder is there once all of that is done, or not at all.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
from contextlib import closing
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from decision.errors import FieldError, Words
from decision.validation import prepared
from pipelines.files import copy_file, locked, room_for
from pipelines.ingestion.behind import ends_of, mark_of_log
from pipelines.lake.tables import Tables, mark_of
from pipelines.log.sqlite.log import LocalLog
from pipelines.logs import step
from pipelines.operations.backup import (
    HOME,
    MAX_NOTE_BYTES,
    NOTE,
    Backup,
    books,
    elsewhere_of,
    partial_of,
    removed_unless_whole,
)
from pipelines.progress import Progress, counted, silent
from pipelines.registry.tracking import MODELS, moved
from pipelines.runs import RESUMED_FOR, forget_runs, runs
from pipelines.settings import Settings, list_loops

_PLACES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
"""Columns of MLflow's tables in which whole paths of files stand."""


class RestoreError(Exception):
    """The backup is not what was taken, or an installation could not go on from it."""


class Restored(msgspec.Struct, frozen=True, kw_only=True):
    """What was restored.

    Attributes:
        home: the home folder.
        taken_at: when the backup was begun; what was erased since has to be erased again.
        files: number of files.
        bytes: of all files.
        loops: counters of each loop, counted in full, the same as when the backup was taken.
        to_ingest: messages on the log that the lake does not have yet; None where the log is elsewhere.
        nights: runs that were under way; they begin anew.
        elsewhere: what was not in the backup, by setting.
    """

    home: str
    taken_at: datetime
    files: int
    bytes: int
    loops: dict[str, dict[str, Any]]
    to_ingest: int | None
    nights: list[str]
    elsewhere: dict[str, str]


@step("restored")
def restore(settings: Settings, path: Path, *, progress: Progress = silent) -> Restored:
    """Make the home folder of an installation from a backup.

    Args:
        settings: the installation; its home folder does not exist or is empty, and what was elsewhere still is.
        path: the backup.
        progress: told of the files copied.

    Raises:
        FieldError: `path` is no backup, the home folder holds something, or an address differs from that of the backup.
        RestoreError: a file is not the one that was taken, or the counters are not those of the backup.
        BlockingIOError: another restore writes there.
        OSError: a file cannot be read or written.
    """
    note, root = read_note(path), settings.root
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise FieldError("home", wanted="a folder that does not exist yet or is empty", got=str(root))
    away = elsewhere_of(settings)
    for name in sorted(note.elsewhere.keys() ^ away.keys()):
        wanted = "the address that it had" if name in note.elsewhere else "none, as when the backup was taken"
        raise FieldError(name, wanted=wanted, got=Words("none" if name in note.elsewhere else "an address"))
    root.parent.mkdir(parents=True, exist_ok=True)
    made, lock = partial_of(root), root.with_name(f".{root.name}.lock")
    with locked(lock, wait=False), room_for(root), removed_unless_whole(made):
        shutil.rmtree(made, ignore_errors=True)  # of a restore that was killed
        made.mkdir(mode=0o700)
        for name, about in counted(note.files.items(), progress, "files restored", total=len(note.files)):
            copy_file(path / HOME / name, made / name)
            with (made / name).open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != about.sha256:
                    raise RestoreError(f"{path / HOME / name}: is not the file that was backed up")
        here = msgspec.structs.replace(settings, home=str(made))
        _point_registry(made / "mlflow.db", root / MODELS)
        nights = [] if "state" in away else _closed_nights(here, note.taken_at)
        to_ingest = _check(here, note)
        os.rename(made, root)
    lock.unlink(missing_ok=True)
    return Restored(
        home=str(root),
        taken_at=note.taken_at,
        files=len(note.files),
        bytes=note.bytes,
        loops=note.loops,
        to_ingest=to_ingest,
        nights=nights,
        elsewhere=note.elsewhere,
    )


def read_note(path: Path) -> Backup:
    """Return what a backup says it holds.

    Raises:
        FieldError: there is none, or it names files that are not below its own folder.
    """
    note = path / NOTE
    if not note.is_file() or note.stat().st_size > MAX_NOTE_BYTES:
        raise FieldError("path", wanted=f"a backup, a folder with {NOTE}", got=str(path))
    try:
        found = msgspec.json.decode(note.read_bytes(), type=prepared(Backup))
    except msgspec.DecodeError as error:
        raise FieldError(NOTE, wanted="the note of a backup of this release or an earlier one", got=error) from error
    for name in found.files:
        parts = PurePosixPath(name).parts
        if not parts or name.startswith("/") or ".." in parts or (path / HOME / name).is_symlink():
            raise FieldError(f"{NOTE}: files", wanted="paths of plain files below the home folder", got=name)
    return found


def _point_registry(database: Path, models: Path) -> None:
    """Put the paths in MLflow's tables below the new home folder; what we read does without, MLflow's pages do not."""
    if not database.is_file():
        return
    with closing(sqlite3.connect(database)) as tables, tables:
        tables.create_function("moved", 1, lambda uri: moved(uri, models) if str(uri).startswith("file:") else uri)
        for table, column in _PLACES:
            known = [row[1] for row in tables.execute(f"PRAGMA table_info({table})")]
            if column in known:
                tables.execute(f"UPDATE {table} SET {column} = moved({column}) WHERE {column} IS NOT NULL")


def _closed_nights(here: Settings, taken_at: datetime) -> list[str]:
    """Forget the nights that were under way: versions of the lake that they read are not in the backup."""
    if here.state_file is None or not here.state_file.is_file():
        return []
    found = [run for loop in list_loops(here) for run in runs(here, loop)]
    gone = [run for run in found if run.status != "done" and taken_at - run.started_at < RESUMED_FOR]
    forget_runs(here, gone)
    return [f"{run.loop}/{run.run_id}" for run in gone]


def _check(here: Settings, note: Backup) -> int | None:
    """Return how many messages are to be ingested.

    Raises:
        RestoreError: counters are not those of the backup, or the log does not fit the lake.
    """
    tables = Tables(here.lake_url)
    for loop, wanted in note.loops.items():
        found = books(tables, loop, note.taken_at)
        if found != wanted:
            raise RestoreError(f"{loop}: has the counters {found}, had {wanted} when it was backed up")
        if wanted["decided"] != wanted["joined"] + wanted["pending"] + wanted["expired"] + sum(
            wanted["dropped"].values()
        ):
            raise RestoreError(f"{loop}: decided is not joined + pending + expired + dropped in the backup: {wanted}")
    if "log" in note.elsewhere or "files" in note.elsewhere or not here.spool_path.is_file():
        return None
    left = 0
    with closing(LocalLog(here.spool_path)) as log:
        identity = mark_of_log(log)
        for (topic, partition), (low, high) in ends_of(log).items():
            table = tables.table(topic)
            position = mark_of(table, f"{topic}/{partition}")
            filled_from = mark_of(table, "log")
            if filled_from not in (None, identity) or (position is not None and not low <= position <= high):
                raise RestoreError(f"{topic}/{partition}: the lake stands at {position}, the log holds [{low}, {high})")
            left += high - (low if position is None else position)
    return left
