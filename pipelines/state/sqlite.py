"""State's map in a SQLite file: one machine's, readers beside one writer."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from pipelines.files import open_sqlite, transaction
from pipelines.state.failures import StateError
from pipelines.state.schema import Execute, schema

NOW = "(julianday('now') - 2440587.5) * 86400.0"
_BUSY_S = 30.0


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
            with closing(open_sqlite(self._path, busy_s=_BUSY_S, synchronous="FULL", schema=made)) as connection:
                self._made = True

                def execute(statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
                    return connection.execute(statement, values).fetchall()

                if writes:
                    with transaction(connection):
                        yield execute
                else:
                    yield execute
        except (sqlite3.Error, OSError) as error:
            raise StateError(f"{self._path}: {error}") from error

    def close(self) -> None:
        """Do nothing: no connection is kept."""
