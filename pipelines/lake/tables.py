"""The Delta tables themselves: opened at a version, their marks, and what SQL counts in them.

Nothing here imports a library that holds rows in Python, so it is there at once; `lake.py` reads and writes rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import finalize

from deltalake import DeltaTable, QueryBuilder
from deltalake.exceptions import DeltaError, TableNotFoundError

from decision.errors import DecisionError, FieldError
from pipelines.lake.damage import DamagedError, LostError, unreadable
from pipelines.lake.marks import MarkedTable
from pipelines.storage import Storage

if TYPE_CHECKING:
    from pipelines.lake.schemas import Table

Rows = TypeVar("Rows")

_MOST_IDLE = 4
"""Opened tables of a name that are kept for the next callers."""


class Tables:
    """The tables of one installation.

    Args:
        path: folder of the tables, or the address of one on object storage (``s3://bucket/folder``), which is reached
            as the ``AWS_`` variables say.
    """

    def __init__(self, path: str | Path) -> None:
        self.storage = Storage(path)
        self._idle: dict[str, list[MarkedTable]] = {}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.path!r})"

    @property
    def path(self) -> str:
        """Folder or address of the tables."""
        return self.storage.url

    def table(self, name: Table, version: int | None = None) -> DeltaTable:
        """Return the Delta table as it is now, or as it was at `version`; created when it does not exist.

        Nobody else holds what is returned. Once it is let go it is brought up to date for the next caller, which reads
        what was committed since and not the log from its last checkpoint on.

        Raises:
            FieldError: there is no such version.
            DamagedError: its log of commits cannot be read.
        """
        idle = self._idle.setdefault(name, [])
        if version is None and idle:
            try:
                kept = idle.pop()
                kept.update_incremental()
                return _lent(kept, idle)
            except (IndexError, DeltaError):  # taken by another thread; or its log was cleaned up, or is gone
                pass
        try:
            found = MarkedTable(self.storage, name, version)
            return _lent(found, idle) if version is None else found
        except TableNotFoundError:
            if version not in (None, 0):
                raise FieldError("version", wanted=f"a version of the table {name!r}", got=version) from None
        except DeltaError as error:
            if version is None:
                raise (DamagedError(name, error) if self._answers(name) else error) from error
            raise FieldError("version", wanted=f"a kept version of the table {name!r}", got=version) from error
        from pipelines.lake.create import create_table  # imports pyarrow

        if self.storage.local:
            self.storage.path(name).mkdir(parents=True, exist_ok=True)
        create_table(f"{self.path}/{name}", name)
        return _lent(MarkedTable(self.storage, name), idle)

    def read(self, name: Table, reading: Callable[[DeltaTable], Rows], version: int | None = None) -> Rows:
        """Return what `reading` finds in the table, as it is now or was at `version`.

        It is called again where an erasure takes away the files of the table that it reads; it must change nothing.

        Raises:
            FieldError: there is no such version, or its files are not kept.
            DamagedError: a file of it is not as it was written.
        """
        while True:
            table = self.table(name, version)
            try:
                return reading(table)
            except OSError as error:
                latest = self.version(name)
                if version not in (None, latest) and isinstance(error, FileNotFoundError):
                    wanted = f"a version of the table {name!r} whose files are kept"
                    raise FieldError("version", wanted=wanted, got=version) from error
                if version is not None or latest == table.version():
                    raise self._damage(name, table, error) from error
            except ValueError as error:  # as pyarrow calls a file that is none
                raise self._damage(name, table, error) from error

    def damage(self, names: Iterable[Table], error: Exception) -> Exception:
        """Return what is wrong with the first of the tables that cannot be read, `error` where none is."""
        for name in names:
            try:
                found = self._damage(name, self.table(name), error)
            except (OSError, DeltaError) as other:
                found = other if isinstance(other, DamagedError) else error
            if found is not error:
                return found
        return error

    def _damage(self, name: str, table: DeltaTable, error: Exception) -> Exception:
        ours = isinstance(error, DecisionError | DamagedError | PermissionError)
        if ours or not isinstance(error, OSError | ValueError):
            return error
        found = unreadable(table)
        if found is None or not self._answers(name):
            return error
        return (LostError if isinstance(error, FileNotFoundError) else DamagedError)(name, found)

    def _answers(self, name: str) -> bool:
        """Return whether the store answers: what cannot be read while it is away is not damaged."""
        try:
            self.storage.read(f"{name}/_delta_log/_last_checkpoint")
        except FileNotFoundError:
            return True
        except Exception:
            return False
        return True

    def version(self, name: Table) -> int:
        """Return the number of the table's latest version."""
        return self.table(name).version()


def _lent(kept: MarkedTable, idle: list[MarkedTable]) -> MarkedTable:
    lent = copy(kept)
    finalize(lent, _returned, kept, idle).atexit = False
    return lent


def _returned(kept: MarkedTable, idle: list[MarkedTable]) -> None:
    if len(idle) < _MOST_IDLE:
        idle.append(kept)


def mark_of(table: DeltaTable, name: str) -> int | None:
    """Return the value of a mark in the table, None where it was never set."""
    return table.mark(name) if isinstance(table, MarkedTable) else table.transaction_version(name)


def partitions_of(table: DeltaTable, loop: str) -> list[int]:
    """Return the log partitions in which the table has rows of `loop`."""
    return sorted({int(values["partition"]) for values in table.partitions() if values["loop"] == loop})


def rows_of(query: str, tables: Mapping[Table, DeltaTable]) -> list[dict[str, Any]]:
    """Return the few rows that an SQL query finds in tables, each as it stands in its `DeltaTable`.

    Args:
        query: in DataFusion's dialect.
        tables: by the names that the query uses.

    Raises:
        OSError: a file cannot be read; it may be gone since the table was opened.
    """
    engine = QueryBuilder()
    for name, table in tables.items():
        engine.register(name, table)
    try:
        found: Any = engine.execute(query).read_all()
        return found.to_struct_array().to_pylist()
    except Exception as error:  # the engine has no type of its own for it
        raise OSError(f"{', '.join(table.table_uri for table in tables.values())}: {error}") from error
