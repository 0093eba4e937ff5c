"""The governance store: one database, SQLite in the home folder or PostgreSQL by its address, and its audit log.

Every change is a transaction that writes what changed and an entry of the hash-chained log together. Changes stand in
line: SQLite locks the file, PostgreSQL an advisory lock, so the chain has one end. After each, the head is noted in a
file beside the database's reach (`anchors.jsonl` in the home folder), by which a log cut short is found out.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import msgspec
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import ArgumentError

from decision.errors import FieldError, Words
from decision.fairness.audit_log import GENESIS, Anchor, Checked, Entry, check, follow
from pipelines.fairness import tables as t
from pipelines.fairness.differences import Tables, differences
from pipelines.progress import Progress, counted, silent
from pipelines.settings import Settings

Query = sa.Select[*tuple[Any, ...]]
"""A query, whatever its columns."""

_LOCK = 0x64656373  # any constant: the key of PostgreSQL's advisory lock
_BUSY_S = 30
_PAGE = 1_000


class Writing:
    """A transaction under way.

    Attributes:
        connection: for statements.
        at: time of everything in it, ISO 8601 UTC.
        actor: who does it.
    """

    def __init__(self, connection: Connection, at: str, actor: str, head: Anchor) -> None:
        self.connection, self.at, self.actor = connection, at, actor
        self.head = head

    def log(self, kind: str, subject: str, body: Mapping[str, Any]) -> Entry:
        """Append an entry to the audit log, in this transaction."""
        entry = follow(self.head, at=self.at, actor=self.actor, kind=kind, subject=subject, body=body)
        self.connection.execute(sa.insert(t.audit_log).values(**entry._asdict()))
        self.head = Anchor(entry.seq, entry.hash)
        return entry

    def rows(self, statement: Query) -> list[dict[str, Any]]:
        """Return the rows of a query as it stands inside this transaction."""
        return [dict(row) for row in self.connection.execute(statement).mappings()]


class Governance:
    """The store of one installation; a context manager.

    Args:
        url: SQLAlchemy address.
        anchors: file the heads are noted in; created with its folder.
    """

    def __init__(self, url: str, anchors: Path) -> None:
        if url.startswith(("postgresql://", "postgres://")):
            url = "postgresql+psycopg://" + url.split("://", 1)[1]
        self._anchors = anchors
        anchors.parent.mkdir(parents=True, exist_ok=True)
        try:
            sqlite = sa.make_url(url).get_backend_name() == "sqlite"
            self._engine: Engine = sa.create_engine(
                url, connect_args={"timeout": _BUSY_S} if sqlite else {}, pool_pre_ping=not sqlite
            )
        except ArgumentError as error:
            raise FieldError("governance", wanted="an SQLAlchemy address", got=Words("another text")) from error
        except ModuleNotFoundError as error:
            says = f"needs the driver {error.name!r}, which is not installed"
            raise FieldError(
                "governance", wanted="an address whose driver is installed", got=error, says=says
            ) from error
        if sqlite:
            event.listen(self._engine, "connect", _prepare_sqlite)
            event.listen(self._engine, "begin", _begin_sqlite)
        self._create()

    @classmethod
    def at(cls, settings: Settings) -> Self:
        """Return the store of the installation `settings`."""
        folder = settings.root / "governance"
        folder.mkdir(parents=True, exist_ok=True)
        url = settings.governance or settings.state
        return cls(url or f"sqlite:///{folder / 'governance.db'}", folder / "anchors.jsonl")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    @property
    def dialect(self) -> str:
        """``sqlite`` or ``postgresql``."""
        return self._engine.dialect.name

    @contextmanager
    def write(self, now: datetime, actor: str) -> Iterator[Writing]:
        """Yield a transaction; committed at the end of the block, taken back after an error.

        Args:
            now: time of the change, UTC.
            actor: who makes it; written to the log.
        """
        with self._engine.connect().execution_options(decision_write=True) as connection, connection.begin():
            if self.dialect == "postgresql":
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
            before = _head(connection)
            writing = Writing(connection, stamp(now), actor[:200], before)
            yield writing
        if writing.head != before:
            self._anchor(writing.head)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Yield a connection for queries."""
        with self._engine.connect() as connection:
            yield connection

    def rows(self, statement: Query) -> list[dict[str, Any]]:
        """Return the rows of a query."""
        with self.read() as connection:
            return [dict(row) for row in connection.execute(statement).mappings()]

    def entries(self, *, kind: str | None = None, subject: str | None = None) -> Iterator[Entry]:
        """Yield the audit log's entries in order, all or those of one kind or subject."""
        query = sa.select(t.audit_log).order_by(t.audit_log.c.seq)
        if kind is not None:
            query = query.where(t.audit_log.c.kind == kind)
        if subject is not None:
            query = query.where(t.audit_log.c.subject == subject)
        with self.read() as connection:
            for part in connection.execution_options(yield_per=_PAGE).execute(query).partitions():
                for row in part:
                    yield Entry(*row)

    def head(self) -> Anchor:
        """Return how many entries the log has and the last one's hash."""
        with self.read() as connection:
            return _head(connection)

    def anchors(self) -> list[Anchor]:
        """Return the heads noted so far, oldest first.

        Raises:
            FieldError: the file holds something else.
        """
        if not self._anchors.is_file():
            return []
        try:
            lines = self._anchors.read_bytes().splitlines()
            return [msgspec.json.decode(line, type=Anchor) for line in lines if line.strip()]
        except msgspec.DecodeError as error:
            raise FieldError("anchors.jsonl", wanted="lines of [count, hash]", got=error) from error

    def verify(self, *anchors: Anchor, progress: Progress = silent) -> Checked:
        """Check the chain, every anchor, and that the tables say what the log tells.

        Args:
            anchors: heads noted elsewhere, checked beside those of the anchor file.
            progress: told of the entries gone through, once for the chain and once for the tables.
        """
        noted, total = self.anchors(), self.head().entries  # first: what is appended while we read is no fault

        def told(what: str) -> Iterator[Entry]:
            return counted(self.entries(), progress, f"entries of the audit log {what}", total=total, every=_PAGE)

        checked = check(told("checked"), [*noted, *anchors])
        tables = Tables(
            self.rows(sa.select(t.judgements)),
            self.rows(sa.select(t.tasks)),
            self.rows(sa.select(t.rules).order_by(t.rules.c.rule_id)),
            self.rows(sa.select(t.people)),
        )
        return checked._replace(faults=(*checked.faults, *differences(tables, told("compared"))))

    def _create(self) -> None:
        with self._engine.connect().execution_options(decision_write=True) as connection, connection.begin():
            if self.dialect == "postgresql":
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
            if not sa.inspect(connection).has_table("audit_log"):
                t.metadata.create_all(connection)
                for statement in t.triggers(self.dialect):
                    connection.exec_driver_sql(statement)

    def _anchor(self, head: Anchor) -> None:
        with self._anchors.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(msgspec.json.encode(head) + b"\n")
            file.flush()
            os.fsync(file.fileno())


def stamp(now: datetime) -> str:
    """Return a time as the store writes it: texts sort as the times do.

    Raises:
        FieldError: it has no UTC offset.
    """
    if now.tzinfo is None:
        raise FieldError("now", wanted="a time with its UTC offset", got=now.isoformat())
    return now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _head(connection: Connection) -> Anchor:
    query = sa.select(t.audit_log.c.seq, t.audit_log.c.hash).order_by(t.audit_log.c.seq.desc()).limit(1)
    row = connection.execute(query).first()
    return Anchor(0, GENESIS) if row is None else Anchor(row[0], row[1])


def _prepare_sqlite(connection: Any, record: object) -> None:
    connection.isolation_level = None  # transactions begin when we say so, below
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("decision_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
