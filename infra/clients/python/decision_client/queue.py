"""Outcomes that wait for the service, on disk or in memory, and fallback answers that must be given again.

On disk it is an SQLite file that is synced at every write: what was queued outlives the application. Several processes
may share one file: two that send the same outcome send the same idempotency key, and it counts once.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec

from decision_client.errors import QueueFullError, UnavailableError
from decision_client.wire import DecideResponse, OutcomeRequest, Problem

if TYPE_CHECKING:
    from pathlib import Path

_TABLES = """
create table if not exists waiting (id integer primary key autoincrement, loop text not null, body blob not null);
create index if not exists waiting_by_loop on waiting (loop, id);
create table if not exists refused (
  id integer primary key, loop text not null, body blob not null, problem blob not null
);
create table if not exists fallbacks (
  id integer primary key autoincrement, loop text not null, event_id text not null, asked blob not null,
  answered blob not null, unique (loop, event_id)
);
"""
_BUSY_S = 10.0
_OUTCOME = msgspec.json.Decoder(OutcomeRequest)
_ANSWER = msgspec.json.Decoder(DecideResponse)
_PROBLEM = msgspec.json.Decoder(Problem)


class Waiting(msgspec.Struct, frozen=True):
    """An outcome in the queue.

    Attributes:
        id: its number, in the order of arrival.
        loop: its loop.
        body: the report as JSON.
    """

    id: int
    loop: str
    body: bytes


class Refusal(msgspec.Struct, frozen=True):
    """An outcome that the service refused when it was sent from the queue.

    Attributes:
        loop: its loop.
        outcome: the report.
        problem: why.
    """

    loop: str
    outcome: OutcomeRequest
    problem: Problem


class Queue:
    """Outcomes in the order of arrival; safe to share between threads.

    Attributes:
        on_disk: whether what is queued outlives the process.
        may_hold: False only where nothing of this process waits.

    Args:
        path: SQLite file, made when absent; in memory when None.
        limit: most outcomes that wait or were refused, and most fallback answers that are remembered.

    Raises:
        ValueError: the limit is less than 1.
        sqlite3.Error: the file cannot be opened, or is none of ours.
    """

    def __init__(self, path: str | Path | None, limit: int) -> None:
        if limit < 1:
            raise ValueError(f"queue_limit: must be at least 1, is {limit}")
        self.on_disk = path is not None
        self._limit = limit
        self._closed = False
        self._lock = threading.Lock()
        self._open = sqlite3.connect(
            ":memory:" if path is None else str(path), timeout=_BUSY_S, check_same_thread=False, isolation_level=None
        )
        self._open.execute("pragma journal_mode = wal")
        self._open.execute("pragma synchronous = full")
        self._open.executescript(_TABLES)
        self._fallbacks = self._count("fallbacks") > 0
        self.may_hold = self._count("waiting") > 0

    def put(self, loop: str, outcomes: Sequence[OutcomeRequest]) -> int:
        """Keep outcomes, all or none, and return their number.

        Raises:
            QueueFullError: there is no room for all of them.
        """
        rows = [(loop, msgspec.json.encode(outcome)) for outcome in outcomes]
        with self._writing():
            kept = self._count("waiting") + self._count("refused")
            if kept + len(rows) > self._limit:
                raise QueueFullError(
                    f"the queue holds {kept} outcomes of at most {self._limit}; {len(rows)} more do not fit"
                )
            self._open.executemany("insert into waiting (loop, body) values (?, ?)", rows)
            self.may_hold = True
        return len(rows)

    def loops(self) -> list[str]:
        """Return the loops that outcomes wait for; notes it where there are none."""
        with self._lock:
            found = [row[0] for row in self._open.execute("select distinct loop from waiting order by loop")]
            self.may_hold = bool(found)
        return found

    def oldest(self, loop: str, count: int) -> list[Waiting]:
        """Return at most `count` of the outcomes of a loop that wait longest."""
        wanted = "select id, loop, body from waiting where loop = ? order by id limit ?"
        with self._lock:
            return [Waiting(*row) for row in self._open.execute(wanted, (loop, count))]

    def remove(self, taken: Sequence[Waiting]) -> None:
        """Forget outcomes that the service has."""
        with self._writing():
            self._open.executemany("delete from waiting where id = ?", [(one.id,) for one in taken])

    def refuse(self, one: Waiting, problem: Problem) -> None:
        """Put an outcome aside that the service does not take."""
        row = (one.id, one.loop, one.body, msgspec.json.encode(problem))
        with self._writing():
            self._open.execute("insert or replace into refused values (?, ?, ?, ?)", row)
            self._open.execute("delete from waiting where id = ?", (one.id,))

    def waiting(self) -> int:
        """Return how many outcomes wait."""
        with self._lock:
            return self._count("waiting")

    def refusals(self) -> list[Refusal]:
        """Return what the service refused, oldest first."""
        with self._lock:
            rows = self._open.execute("select loop, body, problem from refused order by id").fetchall()
        return [Refusal(loop, _OUTCOME.decode(body), _PROBLEM.decode(problem)) for loop, body, problem in rows]

    def forget_refusals(self) -> int:
        """Forget what the service refused, and return how many outcomes that were."""
        with self._writing():
            return self._open.execute("delete from refused").rowcount

    def remember(self, loop: str, asked: bytes, answer: DecideResponse) -> None:
        """Keep a fallback answer, to give it again; the oldest goes when there are too many."""
        row = (loop, answer.event_id, asked, msgspec.json.encode(answer))
        with self._writing():
            self._open.execute(
                "insert or ignore into fallbacks (loop, event_id, asked, answered) values (?, ?, ?, ?)", row
            )
            newest = "select id from fallbacks order by id desc limit ?"
            self._open.execute(f"delete from fallbacks where id not in ({newest})", (self._limit,))
            self._fallbacks = True

    def remembered(self, loop: str, event_id: str) -> tuple[bytes, DecideResponse] | None:
        """Return the question and the fallback answer that was given under an event id, or None."""
        if not self._fallbacks:  # the usual case costs nothing
            return None
        with self._lock:
            row = self._open.execute(
                "select asked, answered from fallbacks where loop = ? and event_id = ?", (loop, event_id)
            ).fetchone()
        return None if row is None else (row[0], _ANSWER.decode(row[1]))

    def close(self) -> None:
        """Close the file; does nothing when it was closed before."""
        with self._lock:
            self._closed = True
            self._open.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """A transaction that has the file's write lock from its start, so that what it counted still holds at its end.

        Raises:
            UnavailableError: the queue was closed.
        """
        with self._lock:
            if self._closed:
                raise UnavailableError("the client is closed")
            self._open.execute("begin immediate")
            try:
                yield
            except BaseException:
                self._open.execute("rollback")
                raise
            self._open.execute("commit")

    def _count(self, table: str) -> int:
        return self._open.execute(f"select count(*) from {table}").fetchone()[0]
