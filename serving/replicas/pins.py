"""Where the pins of episodes stand: a file of the home folder, or a Redis that all replicas share; the first one stays.

A pin that is lost costs an episode of evidence, never a wrong propensity: rows of one episode that tell of different
weights are left out by the guard.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple, Protocol

import msgspec

from pipelines.files import open_sqlite
from pipelines.online.connection import Command, Online

_SCHEMA = """
CREATE TABLE IF NOT EXISTS pins (
    loop TEXT, episode TEXT, policy TEXT, candidate TEXT, weight REAL, guard_version INTEGER, at REAL,
    PRIMARY KEY (loop, episode)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS pins_at ON pins (at);
"""
_BUSY_S = 5.0
_OLDEST_S = 7 * 86_400.0


class Pin(NamedTuple):
    """What an episode began with: versions, the candidate's weight and when, seconds since 1970."""

    policy_version: str
    candidate_version: str
    weight: float
    guard_version: int
    at: float


class Pins(Protocol):
    """The pins that every process agrees on."""

    def first(self, loop: str, fresh: Sequence[tuple[str, Pin]], *, kept_s: float) -> list[Pin]:
        """Return the pin of each episode in `fresh`, which is the one beside it where there was none.

        Args:
            loop: whose episodes.
            fresh: episodes and what each would begin with now.
            kept_s: how long a pin is needed, in seconds.
        """
        ...

    def close(self) -> None:
        """Close what was opened."""
        ...


class FilePins:
    """Pins in one SQLite file, for all workers of a machine and across restarts.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None

    def first(self, loop: str, fresh: Sequence[tuple[str, Pin]], *, kept_s: float) -> list[Pin]:
        """Return the pin of each episode; see `Pins.first`. All are kept for a week."""
        del kept_s
        connection = self._open()
        where = "SELECT policy, candidate, weight, guard_version, at FROM pins WHERE loop = ? AND episode = ?"
        found: list[Pin] = []
        for episode, pin in fresh:
            connection.execute("INSERT OR IGNORE INTO pins VALUES (?, ?, ?, ?, ?, ?, ?)", (loop, episode, *pin))
            found.append(Pin(*connection.execute(where, (loop, episode)).fetchone()))
        return found

    def close(self) -> None:
        """Close the file."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            connection = open_sqlite(self._path, busy_s=_BUSY_S, synchronous="NORMAL", schema=_SCHEMA)
            with closing(connection.execute("SELECT MAX(at) FROM pins")) as found:
                (latest,) = found.fetchone()
            if latest is not None:
                connection.execute("DELETE FROM pins WHERE at < ?", (latest - _OLDEST_S,))
            self._connection = connection
        return self._connection


class OnlinePins:
    """Pins in Redis, for all replicas; while it is away each process goes by what it pinned itself.

    Args:
        online: a Redis that all replicas share.
    """

    def __init__(self, online: Online) -> None:
        self._online = online

    def first(self, loop: str, fresh: Sequence[tuple[str, Pin]], *, kept_s: float) -> list[Pin]:
        """Return the pin of each episode, all asked for at once; see `Pins.first`."""
        commands: list[Command] = []
        for episode, pin in fresh:
            key = f"pin:{loop}:{episode}"
            commands += [("SET", key, _encode(pin), "NX", "EX", max(1, round(kept_s))), ("GET", key)]
        replies = self._online.ask(commands)
        if replies is None:
            return [pin for _, pin in fresh]
        return [_read(stands) or pin for (_, pin), stands in zip(fresh, replies[1::2], strict=True)]

    def close(self) -> None:
        """Do nothing: the connections belong to whoever opened them."""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[str, str, float, int, float]).decode


def _read(stands: bytes | None) -> Pin | None:
    try:
        return None if stands is None else Pin(*_decode(stands))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
