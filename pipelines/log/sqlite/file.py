"""A SQLite file that several processes append to: durable commits, fair turns, errors in the log's own words.

Write-ahead logging lets readers go on while one writer commits, and ``synchronous=FULL`` makes a commit return after
its fsync. Writers queue on a file lock first: SQLite's own waiting sleeps and retries, which costs tens of
milliseconds when two processes write all the time.
"""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipelines.files import hindered, make_home, make_private
from pipelines.log.protocol import LogCorrupt, LogError, LogUnavailable

_log = logging.getLogger(__name__)

_CORRUPT = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT, sqlite3.SQLITE_MISMATCH}


_Place = tuple[int, int] | None
"""Which file stands at a path, by device and number; None for none."""


class SqliteFile:
    """Connections to one file: one for writing, a pool for reading. Open it after a fork, not before.

    Args:
        path: the file; its folder is created.
        application_id: number that marks files of this kind.
        version: version of the schema.
        schema: statements that create it.
        busy_s: how long to wait for a foreign writer, in seconds.
        max_bytes: the file grows no larger than this; None for no limit.

    Raises:
        LogCorrupt: the file is damaged, of another kind, or written by newer code.
        LogUnavailable: the disk does not answer.
    """

    def __init__(
        self, path: Path, *, application_id: int, version: int, schema: str, busy_s: float, max_bytes: int | None
    ) -> None:
        self.path = path
        self.generation = 0
        """Counts the writing connections opened; what was cached about an earlier one is void."""
        self._application_id = application_id
        self._version = version
        self._busy_s = busy_s
        self._max_bytes = max_bytes
        self._turn = threading.Lock()
        self._writer: sqlite3.Connection | None = None
        self._readers: list[sqlite3.Connection] = []
        self._closed = False
        self._opened: _Place = None
        self._wal: int | None = None  # descriptor of the writer's write-ahead log, which may have been removed
        self._beside: tuple[_Place, _Place] | None = None  # where that stood, and its index, when the writer began
        try:
            make_home(path.parent)
            self._lock_file = os.open(f"{path}-writers", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            make_private(path)
        except OSError as error:
            raise LogUnavailable(hindered(error.strerror, path)) from error
        try:
            with self._one_writer():
                self._check_kind(schema)
                self._opened = _standing(self.path)
        except BaseException:
            self.close()
            raise

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Give the connection of an exclusive write transaction, durable once the block is left; errors roll back.

        Raises:
            LogUnavailable: the disk is full, busy or failing, the file or what SQLite keeps beside it is gone;
                nothing was acknowledged.
            LogCorrupt: the file is damaged.
        """
        with self._one_writer():
            self._check_place()
            self._go_over()
            try:
                writer = self._writer or self._open_writer()
                writer.execute("BEGIN IMMEDIATE")
                if self._wal is None:
                    self._note_beside()
                yield writer
                writer.execute("COMMIT")
            except BaseException as error:
                self._give_up_writer()
                if isinstance(error, sqlite3.Error):
                    raise self._translate(error) from error
                raise

    @contextmanager
    def reader(self) -> Iterator[sqlite3.Connection]:
        """Give a connection for reading what is committed.

        Raises:
            LogUnavailable: the disk is failing, or the file is gone.
            LogCorrupt: the file is damaged.
        """
        try:
            connection = self._readers.pop()
        except IndexError:
            connection = None
        try:
            if connection is None:
                self._check_place()
                connection = self._connect()
                connection.execute("PRAGMA query_only = ON")
            yield connection
        except sqlite3.Error as error:
            if connection is not None:
                connection.close()
            raise self._translate(error) from error
        except BaseException:
            if connection is not None:
                connection.close()
            raise
        if self._closed:
            connection.close()
        else:
            self._readers.append(connection)

    def checkpoint(self) -> None:
        """Move everything from the write-ahead log to the file and empty the former."""
        with self._one_writer():
            self._check_place()
            self._go_over()
            try:
                (self._writer or self._open_writer()).execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            except sqlite3.Error as error:
                self._give_up_writer()
                raise self._translate(error) from error

    def close(self) -> None:
        """Close every connection; the last process to close also empties the write-ahead log."""
        with self._turn:
            if self._closed:
                return
            self._closed = True
            while self._readers:
                self._readers.pop().close()
            self._give_up_writer()
            os.close(self._lock_file)

    @contextmanager
    def _one_writer(self) -> Iterator[None]:
        with self._turn:
            if self._closed:
                raise LogError(f"{self.path}: the log is closed")
            fcntl.flock(self._lock_file, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(self._lock_file, fcntl.LOCK_UN)

    def _check_place(self) -> None:
        """Check that the file still stands where it was opened: what is written to one that was removed goes with it.

        Raises:
            LogUnavailable: it does not.
        """
        standing = _standing(self.path)
        if standing != self._opened:
            what = "is gone" if standing is None else "is another than the one that was opened"
            raise LogUnavailable(f"{self.path}: the file {what}; put it back, or restart what writes to it")

    def _note_beside(self) -> None:
        wal, index = self._files_beside()
        try:
            self._wal = os.open(wal, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise LogUnavailable(hindered(error.strerror, wal)) from error
        self._beside = _standing(wal), _standing(index)

    def _files_beside(self) -> tuple[Path, Path]:
        return Path(f"{self.path}-wal"), Path(f"{self.path}-shm")

    def _go_over(self) -> None:
        """Go over to a new write-ahead log where it was removed: who opens the file now does not see the old one.

        What the old one holds comes into the file first. The first of several processes does that, and leaves it
        empty for all. Its index cannot be made anew while anybody has the old one open.

        Raises:
            LogUnavailable: others wrote to a new log meanwhile, a reader does not end, or the index was removed.
        """
        if self._writer is None or self._wal is None or self._beside is None:
            return
        wal, index = self._files_beside()
        found = _standing(wal), _standing(index)
        if found == self._beside:
            return
        if found[0] != self._beside[0] and os.fstat(self._wal).st_size:
            if found[0] is not None and wal.stat().st_size:
                raise LogUnavailable(f"{wal}: another file than the one that was opened; restart what writes to it")
            try:
                (busy,) = self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[:1]
            except sqlite3.Error as error:
                raise self._translate(error) from error
            if busy:
                raise LogUnavailable(f"{wal}: was removed, and somebody still reads what was in it")
            _log.warning("%s: was removed; what it held is in %s, nothing is lost", wal, self.path.name)
        if found[1] != self._beside[1]:
            what = "was removed" if found[1] is None else "another file than the one that was opened"
            raise LogUnavailable(f"{index}: {what}; restart what writes to {self.path.name}")
        self._give_up_writer()
        while self._readers:
            self._readers.pop().close()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, timeout=self._busy_s, isolation_level=None, check_same_thread=False, cached_statements=256
        )
        connection.execute("PRAGMA mmap_size = 0")  # a truncated file is then an error, not a SIGBUS
        return connection

    def _open_writer(self) -> sqlite3.Connection:
        writer = self._connect()
        try:
            writer.execute("PRAGMA journal_mode = WAL")
            writer.execute("PRAGMA synchronous = FULL")
            writer.execute("PRAGMA wal_autocheckpoint = 1000")  # pages; more make one request wait longer for them
            writer.execute("PRAGMA journal_size_limit = 67108864")
            writer.execute("PRAGMA secure_delete = FAST")
            writer.execute("PRAGMA cache_size = -32768")
            if self._max_bytes is not None:
                page = writer.execute("PRAGMA page_size").fetchone()[0]
                writer.execute(f"PRAGMA max_page_count = {max(1, self._max_bytes // page)}")
        except BaseException:
            writer.close()
            raise
        self._writer = writer
        self.generation += 1
        return writer

    def _give_up_writer(self) -> None:
        writer, self._writer = self._writer, None
        wal, self._wal = self._wal, None
        if wal is not None:
            os.close(wal)
        if writer is not None:
            with suppress(sqlite3.Error):
                if writer.in_transaction:
                    writer.execute("ROLLBACK")
            with suppress(sqlite3.Error):
                writer.close()

    def _check_kind(self, schema: str) -> None:
        try:
            writer = self._open_writer()
            kind = writer.execute("PRAGMA application_id").fetchone()[0]
            version = writer.execute("PRAGMA user_version").fetchone()[0]
            tables = writer.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
            if tables == 0:
                writer.executescript(
                    f"BEGIN IMMEDIATE; {schema}; PRAGMA application_id = {self._application_id};"
                    f" PRAGMA user_version = {self._version}; COMMIT"
                )
            elif kind != self._application_id:
                raise LogCorrupt(f"{self.path}: must be an event log, is another SQLite file")
            elif version > self._version:
                raise LogCorrupt(
                    f"{self.path}: must have schema {self._version} or older, has {version}: newer code wrote it"
                )
        except sqlite3.Error as error:
            self._give_up_writer()
            raise self._translate(error) from error

    def _translate(self, error: sqlite3.Error) -> LogError:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in _CORRUPT:
            return LogCorrupt(f"{self.path}: the event log is damaged: {error}; restore it from a backup")
        return LogUnavailable(hindered(error, self.path))


def _standing(path: Path) -> _Place:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise LogUnavailable(hindered(error.strerror, path)) from error
    return found.st_dev, found.st_ino
