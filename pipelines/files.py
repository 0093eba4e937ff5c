"""Files of an installation: replaced whole, locked between processes, and opened as databases, each in one way."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Literal

SOURCES = Path(__file__).resolve().parents[1]
"""Folder that holds the packages: the checkout, or where the distribution is installed."""
_FULL = (errno.ENOSPC, errno.EDQUOT)
_LEAST_FREE = 1 << 20
"""Bytes below which a disk counts as full: a database takes so much to change one row of it."""


def make_home(folder: Path) -> None:
    """Make an installation's home folder, or another that holds databases, where there is none; for its owner alone.

    One that exists stays as it is.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)


def hindrance(path: Path) -> str:
    """Return what keeps everybody from writing where `path` is, and what to do about it; "" for nothing.

    Databases say "disk I/O error" and libraries worse where a disk is full, so the disk itself is asked.
    """
    folder = next((each for each in (path, *path.parents) if each.is_dir()), path)
    try:
        disk = os.statvfs(folder)
    except OSError as error:
        return f"{folder} cannot be looked at ({error.strerror}): see to its disk"
    if disk.f_flag & os.ST_RDONLY:
        return f"{folder} is on a read-only file system: mount it for writing"
    if disk.f_bavail * disk.f_frsize < _LEAST_FREE:
        return f"the disk of {folder} is full: make room on it"
    if not os.access(folder, os.W_OK):
        return f"{folder} is closed to the user who runs this: give it to him"
    return ""


def hindered(error: object, path: Path) -> str:
    """Return the text of an error about `path`, with what hinders all writing there."""
    found = hindrance(path)
    return f"{path}: {error}; {found}" if found else f"{path}: {error}"


@contextmanager
def room_for(path: Path) -> Iterator[None]:
    """Name the disk on which there was no room for `path`: neither the system nor SQLite says which one it was.

    Raises:
        OSError: there was none; it says where to make some.
    """
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        number = error.errno if isinstance(error, OSError) else getattr(error, "sqlite_errorcode", 0) & 0xFF
        if number not in (_FULL if isinstance(error, OSError) else (sqlite3.SQLITE_FULL,)):
            raise
        raise OSError(errno.ENOSPC, f"{path}: the disk has no room for it; make room on it, and begin again") from error


def make_private(path: Path) -> None:
    """Make an empty file that its owner alone reads and writes, where there is none; SQLite's others follow it."""
    with suppress(OSError):  # it is there, or whoever opens it tells what is wrong
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Give a file to write that takes the place of `path` when the block ends well.

    A reader, or a crash, sees the old bytes or the new ones and nothing between.
    """
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}-", delete=False) as file:
        try:
            yield file  # pyright: ignore[reportReturnType] - its wrapper passes for the file
            file.flush()
            os.fsync(file.fileno())
            os.replace(file.name, path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


def write_atomically(path: Path, data: bytes) -> None:
    """Make `data` the content of `path`; see `replacing`."""
    with replacing(path) as file:
        file.write(data)


def copy_file(source: Path, target: Path) -> None:
    """Copy a file, for its owner alone; it is on disk when this returns, and its folder is made."""
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with source.open("rb") as reading, replacing(target) as writing:
        shutil.copyfileobj(reading, writing, 1 << 20)


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold the lock file `path` against other processes and threads; it is created and stays.

    Args:
        path: the file; its folder exists.
        wait: for whoever holds it.

    Raises:
        BlockingIOError: someone holds it, and `wait` is false.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Hold the file's one write transaction: what the block writes is there whole, or not at all when it raises."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # SQLite has ended it by itself after some errors, a full disk among them
            connection.execute("ROLLBACK")
        raise


def open_sqlite(
    path: Path, *, busy_s: float, synchronous: Literal["FULL", "NORMAL"], schema: str = ""
) -> sqlite3.Connection:
    """Return a connection in autocommit mode: transactions begin and end where the caller says so.

    Readers go on while one writer commits (write-ahead log). The connection may pass between threads, one at a time.

    Args:
        path: the file; created with its folder when it does not exist.
        busy_s: how long to wait for a foreign writer, in seconds.
        synchronous: ``FULL`` survives a power cut; ``NORMAL`` a crash of the process.
        schema: statements that create what is missing.
    """
    make_home(path.parent)
    make_private(path)
    connection = sqlite3.connect(path, timeout=busy_s, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {synchronous}")
        connection.executescript(schema)
    except BaseException:
        connection.close()
        raise
    return connection
