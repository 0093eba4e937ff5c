"""State's map in a SQLite file: one machine's, readers beside one writer."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from pipelines.files import hindered, open_sqlite, transaction
from pipelines.state.failures import StateError
from pipelines.state.schema import Execute, schema

NOW = "(julianday('now') - 2440587.5) * 86400.0"
_BUSY_S = 30.0
_NO_ROOM = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY}
_CORRUPT = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT}
_HELD = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


class SqliteDatabase:
    """Transactions on a file, which is opened anew for each: it costs little, and leaves nothing open."""

    now = NOW
    share = ""  # the file's one write transaction holds every row

    def __init__(self, path: Path) -> None:
        self._path = path
        self._made = False

    def __repr__(self) -> str:
        return f"sqlite:///{self._path}"

    @contextmanager
    def transaction(self, *, writes: bool) -> Iterator[Execute]:
        """Yield what executes a statement; a block that raises has changed nothing."""
        try:
            made = "" if self._made else schema(blob="BLOB", order="")
            with closing(self._opened(made, writes=writes)) as connection:

                def execute(statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
                    return connection.execute(statement, values).fetchall()

                if writes:
                    with transaction(connection):
                        yield execute
                else:
                    yield execute
        except (sqlite3.Error, OSError) as error:
            self._made = False  # the file may have been taken away, or another one put in its place
            raise StateError(_told(error, self._path)) from error

    def _opened(self, made: str, *, writes: bool) -> sqlite3.Connection:
        try:
            connection = open_sqlite(self._path, busy_s=_BUSY_S, synchronous="FULL", schema=made)
        except sqlite3.Error as error:
            if writes or _code(error) not in _NO_ROOM or not self._path.is_file():
                raise
            return self._for_reading()
        self._made = True
        return connection

    def _for_reading(self) -> sqlite3.Connection:
        """Open the file where there is no room for what others share beside it: keys must hold on a full disk, too.

        Held by this connection alone, which keeps its index of the write-ahead log in memory.
        """
        connection = sqlite3.connect(f"{self._path.as_uri()}?mode=rw", uri=True, timeout=_BUSY_S, isolation_level=None)
        try:
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            connection.execute("PRAGMA query_only = ON")
            connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()
        except BaseException:
            connection.close()
            raise
        return connection

    def close(self) -> None:
        """Do nothing: no connection is kept."""


def _code(error: BaseException) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _told(error: Exception, path: Path) -> str:
    """Return what happened to the file, and what to do about it."""
    if _code(error) in _CORRUPT:
        return f"{path}: {error}; restore it from a backup, or move it away: versions are known again from MLflow"
    if _code(error) in _HELD:
        return f"{path}: {error} for {_BUSY_S:.0f} s; end what holds it, `fuser {path}` names it"
    return hindered(error, path)
