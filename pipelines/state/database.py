"""A database by its address, SQLite or PostgreSQL, opened in one way for everything that is kept in one."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import ArgumentError

from decision.errors import FieldError, Words

_BUSY_S = 30
WRITES = "decision_write"
"""Execution option of a connection that will write."""


def open_database(url: str, field: str) -> Engine:
    """Return the engine of a database; nothing is connected yet.

    SQLite is opened for readers beside one writer (write-ahead log, every commit on disk), and a connection with the
    execution option `WRITES` holds the file's write transaction from its beginning: nothing is read that another
    writer then changes.

    Args:
        url: SQLAlchemy address; ``postgresql://`` means the driver psycopg.
        field: name of the setting it comes from, for the message.

    Raises:
        FieldError: it is no address, or its driver is not installed.
    """
    if url.startswith(("postgresql://", "postgres://")):
        url = "postgresql+psycopg://" + url.split("://", 1)[1]
    try:
        sqlite = sa.make_url(url).get_backend_name() == "sqlite"
        # A file is opened anew each time: it costs little, and leaves nothing open.
        file: Any = {"poolclass": sa.NullPool, "connect_args": {"timeout": _BUSY_S}}
        engine = sa.create_engine(url, **(file if sqlite else {"pool_pre_ping": True}))
    except ArgumentError as error:
        raise FieldError(field, wanted="an SQLAlchemy address", got=Words("another text")) from error
    except ModuleNotFoundError as error:
        says = f"needs the driver {error.name!r}, which is not installed"
        raise FieldError(field, wanted="an address whose driver is installed", got=error, says=says) from error
    if sqlite:
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, record: object) -> None:
    connection.isolation_level = None  # transactions begin when we say so, below
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get(WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
