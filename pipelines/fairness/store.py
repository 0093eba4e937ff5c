"""The governance store: one database, SQLite in the home folder or PostgreSQL by its address, and its audit log.

Every change is a transaction that writes what changed and an entry of the hash-chained log together. Changes stand in
line: SQLite locks the file, PostgreSQL an advisory lock, so the chain has one end. After each, the head is signed and
noted in a file of the home folder (`anchors.jsonl`) and in State, by which a log cut short or written anew is found
out.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine, ExceptionContext
from sqlalchemy.exc import ArgumentError, DatabaseError, OperationalError, ProgrammingError

from decision.errors import FieldError, Words
from decision.fairness.audit_log import GENESIS, Anchor, Entry, follow
from pipelines.access.keys import Key, listed
from pipelines.fairness import tables as t
from pipelines.fairness.errors import StoreError
from pipelines.fairness.heads import Begun, Head, HeadsFile, HeadsInState, Noted, Signer, begun_of
from pipelines.files import hindrance, make_home, make_private
from pipelines.settings import Settings
from pipelines.state import postgresql
from pipelines.state.state import State

Query = sa.Select[*tuple[Any, ...]]
"""A query, whatever its columns."""

_log = logging.getLogger(__name__)

_LOCK = 0x64656373  # any constant: the key of PostgreSQL's advisory lock
_BUSY_S = 30
"""How long a change waits for another's, in seconds."""
_WORK_S = 60
"""How long PostgreSQL may work on a statement, in seconds: one that hangs is given up."""
_PAGE = 1_000
_TO_DO = {  # by what SQLite says
    "is locked": "end what holds it: `fuser` names that",
    "not a database": "restore it from a backup",
    "malformed": "restore it from a backup",
}
SIGNER_ADDED, HEADS_BEGUN, REPAIRED = "signer_added", "heads_begun", "anchors_repaired"


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
        anchors: file the heads are noted in; created with its folder, beside the key that signs them.
        state: where they are noted too; closed with the store.

    Attributes:
        alone: whether nobody but this home can write to the log.
    """

    def __init__(self, url: str, anchors: Path, state: State | None = None) -> None:
        if url.startswith(("postgresql://", "postgres://")):
            url = "postgresql+psycopg://" + url.split("://", 1)[1]
        make_home(anchors.parent)
        self._file, self._signing = HeadsFile(anchors), anchors.with_name("signing.key")
        self._state = state
        self._heads = None if state is None else HeadsInState(state)
        try:
            sqlite = sa.make_url(url).get_backend_name() == "sqlite"
            limits = {"timeout": _BUSY_S} if sqlite else {"connect_timeout": postgresql.CONNECT_S}
            self._engine: Engine = sa.create_engine(url, connect_args=limits, pool_pre_ping=not sqlite)
        except ArgumentError as error:
            raise FieldError("governance", wanted="an SQLAlchemy address", got=Words("another text")) from error
        except ModuleNotFoundError as error:
            says = f"needs the driver {error.name!r}, which is not installed"
            raise FieldError(
                "governance", wanted="an address whose driver is installed", got=error, says=says
            ) from error
        self.alone = sqlite
        event.listen(self._engine, "handle_error", _fail)
        if sqlite:
            if (database := self._engine.url.database or ":memory:") != ":memory:":
                make_private(Path(database))
            event.listen(self._engine, "connect", _prepare_sqlite)
            event.listen(self._engine, "begin", _begin_sqlite)
        elif self._engine.dialect.driver == "psycopg":
            event.listen(self._engine, "do_connect", _connect_patiently)
            event.listen(self._engine, "checkout", _set_to_work)
            event.listen(self._engine, "checkin", _set_aside)
        self._create()

    @classmethod
    def at(cls, settings: Settings) -> Self:
        """Return the store of the installation `settings`."""
        folder = settings.root / "governance"
        make_home(settings.root)
        url = settings.governance or settings.state
        url = url or f"sqlite:///{folder / 'governance.db'}"
        return cls(url, folder / "anchors.jsonl", State(settings.state_url))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()
        if self._state is not None:
            self._state.close()

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
            self._stand_in_line(connection)
            before = _head(connection)
            writing = Writing(connection, stamp(now), actor[:200], before)
            yield writing
            signer = self._begin(writing) if writing.head != before else None
            begun = None if signer is None else self._begun(writing)
        if signer is not None:
            head = signer.sign(writing.head, writing.at)
            self._file.note(head)
            if self._heads is not None and begun is not None:
                self._heads.note(head, begun.key, writing.actor)

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

    def noted_in_file(self) -> Noted | None:
        """Return the heads that this home noted; None without the file."""
        return self._file.noted()

    def noted_in_state(self) -> Noted | None:
        """Return the heads that all homes noted in State since they were begun there; None for a store without.

        Raises:
            StateError: State cannot be reached.
        """
        return None if self._heads is None else self._heads.noted(self.begun())

    def begun(self) -> Begun | None:
        """Return since when heads are noted in State; None where they are not yet."""
        found = deque(self.entries(kind=HEADS_BEGUN), maxlen=1)
        return begun_of(found[0]) if found else None

    def api_keys(self) -> list[Key]:
        """Return the API keys in State; nothing for a store without.

        Raises:
            StateError: State cannot be reached.
        """
        return [] if self._state is None else [key for key, _ in listed(self._state)]

    def sign_head(self, now: datetime) -> Head:
        """Return the log's head, signed, for somebody else to keep."""
        return Signer(self._signing).sign(self.head(), stamp(now))

    def repair(self, now: datetime, by: str) -> list[str]:
        """Take torn lines out of the file of heads, begin those in State anew where they are gone, and log both.

        Returns:
            What was done, in words; nothing where all is well.

        Raises:
            StateError: State cannot be reached.
        """
        done: list[str] = []
        begun = self.begun()
        with self.write(now, by) as writing:
            self._begin(writing)
            if (taken := self._file.repair()) is not None:
                writing.log(REPAIRED, "anchors.jsonl", taken)
                done.append(f"{taken['lines']} lines of anchors.jsonl were no heads and are gone")
            if self._heads is not None and begun is not None and self._heads.noted(begun).faults:
                writing.log(HEADS_BEGUN, "state", {"key": self._heads.free()})
                done.append("the heads in State are begun anew")
        return done

    def _stand_in_line(self, connection: Connection) -> None:
        if self.dialect == "postgresql":
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_BUSY_S}s'")
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))

    def _begin(self, writing: Writing) -> Signer:
        """Return this home's key; the log names it, and says once that heads are noted in State."""
        signer = Signer(self._signing)
        named = sa.select(t.audit_log.c.seq).where(
            t.audit_log.c.kind == SIGNER_ADDED, t.audit_log.c.subject == signer.public
        )
        if not writing.rows(named):
            writing.log(SIGNER_ADDED, signer.public, {})
        if self._heads is not None and self._begun(writing) is None:
            writing.log(HEADS_BEGUN, "state", {"key": self._heads.free()})
        return signer

    def _begun(self, writing: Writing) -> Begun | None:
        query = sa.select(t.audit_log).where(t.audit_log.c.kind == HEADS_BEGUN)
        rows = writing.rows(query.order_by(t.audit_log.c.seq.desc()).limit(1))
        return begun_of(Entry(**rows[0])) if rows else None

    def _create(self) -> None:
        with self._engine.connect().execution_options(decision_write=True) as connection, connection.begin():
            self._stand_in_line(connection)
            if not sa.inspect(connection).has_table("audit_log"):
                t.metadata.create_all(connection)
                for statement in t.triggers(self.dialect):
                    connection.exec_driver_sql(statement)
            for index in t.COUNTED:
                try:
                    with connection.begin_nested():
                        index.create(connection, checkfirst=True)
                except ProgrammingError as error:  # the tables are somebody else's: all is well without, but slower
                    _log.warning("no index %s, so counts of panels are slower: %s", index.name, error.orig)


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


def _connect_patiently(dialect: object, record: object, args: list[Any], options: dict[str, Any]) -> Any:
    del dialect, record
    return postgresql.patient()(*args, **options)


def _set_to_work(connection: Any, record: object, proxy: object) -> None:
    del record, proxy
    connection.patience_s = _WORK_S


def _set_aside(connection: Any, record: object) -> None:
    del record
    if connection is not None:  # else it was closed
        connection.patience_s = postgresql.CONNECT_S  # for the question whether it is there still


def _fail(context: ExceptionContext) -> None:
    """Raise what is wrong with the database in its own words; what a statement broke (a constraint) goes on as it is.

    Raises:
        StoreError: it is away, held or damaged.
    """
    error, engine = context.sqlalchemy_exception, context.engine
    if isinstance(context.original_exception.__cause__, TimeoutError):  # another connection would hang as well
        raise StoreError(f"the panels' database: {context.original_exception}")
    sqlite = engine is not None and engine.dialect.name == "sqlite"
    if engine is None or (type(error) is not OperationalError and not (sqlite and type(error) is DatabaseError)):
        return  # PostgreSQL's triggers, which keep the audit log as it is, raise a DatabaseError
    said = " ".join(str(context.original_exception).split())
    if not sqlite or engine.url.database is None:
        raise StoreError(f"the panels' database: {said}")
    path = Path(engine.url.database)
    to_do = next((told for words, told in _TO_DO.items() if words in said), "")
    to_do = hindrance(path.parent) or to_do
    raise StoreError(f"{path}: {said}{f'; {to_do}' if to_do else ''}")


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("decision_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
