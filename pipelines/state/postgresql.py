"""State's map on PostgreSQL: any number of machines'."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from threading import Lock
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from decision.errors import FieldError
from pipelines.state.failures import StateError
from pipelines.state.schema import Execute, schema

if TYPE_CHECKING:
    import psycopg

NOW = "extract(epoch from clock_timestamp())::double precision"
CONNECT_S, _STATEMENT_S = 5, 10
"""How long a server may be silent when a transaction begins, and how long it may work on a statement, in seconds."""
_BEGIN = f"BEGIN; SET LOCAL statement_timeout = '{_STATEMENT_S}s'; SET LOCAL lock_timeout = '{_STATEMENT_S}s'"
_CREATION = 0x73746174  # any constant: the key of the advisory lock around the making of the tables


class PostgresDatabase:
    """Transactions on a server; connections are kept and shared between threads, one thread each at a time.

    Nothing of a session outlives its transaction, so a pooler between us and the server may work by transactions.

    Raises:
        FieldError: the driver is not installed.
    """

    now = NOW
    share = " FOR SHARE"

    def __init__(self, url: str) -> None:
        try:
            import psycopg
        except ModuleNotFoundError as error:
            raise FieldError(
                "state",
                wanted="an address whose driver is installed",
                got=error,
                says=f"needs the driver {error.name!r}, which is not installed",
            ) from error
        self._psycopg = psycopg
        self._url = url
        self._idle: list[psycopg.Connection[tuple[Any, ...]]] = []
        self._lock = Lock()
        self._process = os.getpid()
        self._made = False

    def __repr__(self) -> str:
        parts = urlsplit(self._url)
        return f"postgresql://{parts.hostname or ''}{parts.path}"

    @contextmanager
    def transaction(self, *, writes: bool) -> Iterator[Execute]:
        """Yield what executes a statement; a block that raises has changed nothing."""
        del writes
        try:
            connection = self._begun()
            try:
                self._make(connection)

                def execute(statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
                    cursor = connection.execute(statement.replace("?", "%s").encode(), values)
                    return [] if cursor.description is None else cursor.fetchall()

                yield execute
                connection.execute("COMMIT")
                self._made = True
            except BaseException:
                with suppress(self._psycopg.Error):
                    connection.execute("ROLLBACK")
                raise
            finally:
                self._give_back(connection)
        except (self._psycopg.Error, OSError) as error:
            raise StateError(f"{self!r}: {str(error).partition(chr(10))[0]}") from error

    def close(self) -> None:
        """Close the connections."""
        with self._lock:
            while self._idle:
                self._idle.pop().close()

    def _begun(self) -> Any:
        """Return a connection in a transaction; those that the server has closed meanwhile are dropped."""
        while (kept := self._take()) is not None:
            try:
                return self._begin(kept)
            except self._psycopg.OperationalError:
                kept.close()
                if kept.gave_up:
                    raise
        # No statement is prepared: it would live in a session that a pooler may hand to somebody else.
        opened = patient()(
            self._url,
            autocommit=True,
            prepare_threshold=None,
            connect_timeout=CONNECT_S,
            tcp_user_timeout=1_000 * _STATEMENT_S,
            application_name="decision",
        )
        return self._begin(opened)

    @staticmethod
    def _begin(connection: Any) -> Any:
        connection.patience_s = CONNECT_S
        connection.execute(_BEGIN.encode())
        connection.patience_s = _STATEMENT_S + CONNECT_S  # the server ends what takes it too long, and says so
        return connection

    def _take(self) -> Any:
        with self._lock:
            if self._process != os.getpid():  # they are our parent's
                self._idle, self._process = [], os.getpid()
            return self._idle.pop() if self._idle else None

    def _give_back(self, connection: psycopg.Connection[tuple[Any, ...]]) -> None:
        if connection.closed or connection.info.transaction_status != self._psycopg.pq.TransactionStatus.IDLE:
            connection.close()
            return
        with self._lock:
            self._idle.append(connection)

    def _make(self, connection: psycopg.Connection[tuple[Any, ...]]) -> None:
        if not self._made:
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (_CREATION,))
            connection.execute(schema(blob="BYTEA", order=' COLLATE "C"').encode())


@cache
def patient() -> Callable[..., Any]:
    """Return what opens a connection that is closed when the server is silent for longer than its `patience_s`.

    The server's own limits say nothing of one that is stopped, or whose disk is: it takes what is sent and is silent.
    The statement then raises psycopg's `OperationalError`, and `gave_up` tells that this was why.
    """
    import psycopg

    class Patient(psycopg.Connection[tuple[Any, ...]]):
        patience_s: float = CONNECT_S
        gave_up = False

        def wait(self, gen: Generator[Any, Any, Any], *args: Any, **kwargs: Any) -> Any:
            try:
                return super().wait(_until(gen, self.patience_s), *args, **kwargs)
            except TimeoutError as error:
                self.gave_up = True
                self.close()
                raise psycopg.OperationalError(str(error)) from error

    return Patient.connect


def _until(work: Generator[Any, Any, Any], patience_s: float) -> Generator[Any, Any, Any]:
    """Do as `work` does; raise TimeoutError once it was told that nothing is there for so many seconds."""
    ends = time.monotonic() + patience_s
    try:
        wanted = next(work)
        while True:
            ready = yield wanted
            if not ready and time.monotonic() >= ends:
                raise TimeoutError(f"does not answer for {patience_s:g} s")
            wanted = work.send(ready)
    except StopIteration as done:
        return done.value
