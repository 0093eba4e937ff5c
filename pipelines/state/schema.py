"""The tables of State, the same on every database, and what a transaction on them offers."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

_TABLES = """
CREATE TABLE IF NOT EXISTS state (
    key TEXT{order} NOT NULL PRIMARY KEY, version BIGINT NOT NULL, body {blob});
CREATE TABLE IF NOT EXISTS state_changes (
    key TEXT{order} NOT NULL, version BIGINT NOT NULL, body {blob}, at DOUBLE PRECISION NOT NULL,
    author TEXT NOT NULL, PRIMARY KEY (key, version));
CREATE TABLE IF NOT EXISTS state_leases (
    name TEXT NOT NULL PRIMARY KEY, token BIGINT NOT NULL, holder TEXT NOT NULL, ends DOUBLE PRECISION NOT NULL);
"""


def schema(*, blob: str, order: str) -> str:
    """Return the statements that make the tables where they are missing.

    A body of null stands for a key that was removed. Times are seconds since 1970 by the database's clock.

    Args:
        blob: the database's type of bytes.
        order: how it says that texts are ordered by code points, so that a prefix is a range of the index.
    """
    return _TABLES.format(blob=blob, order=order)


class Execute(Protocol):
    """Executes a statement, whose values stand as ``?``, and returns its rows."""

    def __call__(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return the rows."""
        ...


class Database(Protocol):
    """Where the tables are.

    Attributes:
        now: expression for the time, seconds since 1970.
        share: what a query of a row ends with so that nobody changes the row before the transaction is over.
    """

    now: str
    share: str

    def transaction(self, *, writes: bool) -> AbstractContextManager[Execute]:
        """Begin a transaction; a block that raises has changed nothing.

        Raises:
            StateError: the database cannot be reached, or refuses.
        """
        ...

    def close(self) -> None:
        """Close what is kept open."""
        ...
