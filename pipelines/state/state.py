"""State: what all machines of an installation must agree on, as a versioned map.

Correctness is `State.put` with the version that was read: of two that change a key from the same version, one wins and
the other is told. A lease only saves work, since its holder may sleep past its end and wake; where that would hurt, its
token goes along with a change as the fence, and a change by a former holder is refused.

The map is three tables of a database, SQLite in the home folder or PostgreSQL, with the same statements for both. Times
are the database's own, so clocks of machines do not matter.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, Self
from weakref import finalize

from decision.errors import FieldError, Words
from pipelines.state.failures import FencedError, StaleError
from pipelines.state.postgresql import PostgresDatabase
from pipelines.state.schema import Database, Execute
from pipelines.state.sqlite import SqliteDatabase

MAX_KEY_CHARS, MAX_VALUE_BYTES, MAX_BY_CHARS = 300, 4 << 20, 200
KEPT_VERSIONS = 1_000
"""Changes of a key that are kept."""

_FILE = "sqlite:///"
_SERVER = ("postgresql://", "postgres://")


class Entry(NamedTuple):
    """What stands under a key."""

    version: int
    value: bytes


class Change(NamedTuple):
    """One change of a key; the value is None where it was removed."""

    version: int
    value: bytes | None
    at: datetime
    by: str


class Lease(NamedTuple):
    """A lease that was got; the token grows with every holder."""

    name: str
    token: int


Changes = Mapping[str, tuple[int | None, bytes | None]]
"""{key: (expected, value)}: the version that was read, None for a key that is not there; a value of None removes it."""


class State:
    """The map of one installation; safe to share between threads, a context manager.

    Args:
        url: address of the database, ``sqlite:///path`` or ``postgresql://``.

    Raises:
        FieldError: the address is none, or its driver is missing.
    """

    def __init__(self, url: str) -> None:
        self._database = _database_of(url)
        finalize(self, self._database.close)  # whoever forgets to close it leaves no connection open

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"State({self._database!r})"

    def close(self) -> None:
        """Close the connections."""
        self._database.close()

    def get(self, key: str) -> Entry | None:
        """Return what stands under `key`.

        Raises:
            StateError: the database cannot be reached; likewise from every other method.
        """
        with self._database.transaction(writes=False) as execute:
            rows = execute("SELECT version, body FROM state WHERE key = ? AND body IS NOT NULL", (key,))
        return Entry(rows[0][0], bytes(rows[0][1])) if rows else None

    def entries(self, prefix: str) -> dict[str, Entry]:
        """Return what stands under every key that begins with `prefix`, by key; one query."""
        with self._database.transaction(writes=False) as execute:
            rows = execute(
                "SELECT key, version, body FROM state WHERE key >= ? AND key < ? AND body IS NOT NULL ORDER BY key",
                _range(prefix),
            )
        return {key: Entry(version, bytes(body)) for key, version, body in rows}

    def versions(self, prefix: str) -> dict[str, int]:
        """Return the version of every key that begins with `prefix`, by key; removed ones are not there."""
        with self._database.transaction(writes=False) as execute:
            rows = execute(
                "SELECT key, version FROM state WHERE key >= ? AND key < ? AND body IS NOT NULL ORDER BY key",
                _range(prefix),
            )
        return dict(rows)  # pyright: ignore[reportArgumentType]

    def put(
        self, changes: Changes, *, by: str = "", fence: Lease | None = None, kept: int = KEPT_VERSIONS
    ) -> dict[str, int]:
        """Change keys, all of them or none, and return their new versions.

        Args:
            changes: what to change, from which versions.
            by: who does it; kept with the change.
            fence: refuse the change unless nobody got this lease since.
            kept: how many changes of each of the keys are kept; at most `KEPT_VERSIONS`.

        Raises:
            FieldError: a key or value is too large.
            StaleError: a key is not at its expected version; nothing was changed.
            FencedError: the lease has another holder by now; nothing was changed.
        """
        for key, (_, value) in changes.items():
            _check(key, value)
        with self._database.transaction(writes=True) as execute:
            if fence is not None:
                self._hold(execute, fence)
            return {key: self._change(execute, key, *changes[key], by, kept) for key in sorted(changes)}

    def history(self, key: str) -> list[Change]:
        """Return the latest `KEPT_VERSIONS` changes of `key`, oldest first."""
        with self._database.transaction(writes=False) as execute:
            rows = execute("SELECT version, body, at, author FROM state_changes WHERE key = ? ORDER BY version", (key,))
        return [
            Change(version, None if body is None else bytes(body), datetime.fromtimestamp(at, UTC), by)
            for version, body, at, by in rows
        ]

    def forget(self, keys: Iterable[str]) -> None:
        """Remove keys with all that is kept of their changes; one that comes back begins at version 1 again."""
        with self._database.transaction(writes=True) as execute:
            for key in keys:
                execute("DELETE FROM state WHERE key = ?", (key,))
                execute("DELETE FROM state_changes WHERE key = ?", (key,))

    def acquire(self, name: str, ttl_s: float, *, holder: str = "") -> Lease | None:
        """Return the lease `name` for `ttl_s` seconds, None while somebody else has it."""
        _check(name, None)
        now = self._database.now
        with self._database.transaction(writes=True) as execute:
            rows = execute(
                f"INSERT INTO state_leases VALUES (?, 1, ?, {now} + ?) ON CONFLICT (name) DO UPDATE SET "
                "token = state_leases.token + 1, holder = excluded.holder, ends = excluded.ends "
                f"WHERE state_leases.ends <= {now} RETURNING token",
                (name, holder[:MAX_BY_CHARS], ttl_s),
            )
        return Lease(name, rows[0][0]) if rows else None

    def renew(self, lease: Lease, ttl_s: float) -> bool:
        """Extend a lease to `ttl_s` seconds from now, and return whether it is still ours."""
        return self._end(lease, ttl_s)

    def release(self, lease: Lease) -> bool:
        """Give a lease back, and return whether it was still ours."""
        return self._end(lease, 0.0)

    def _end(self, lease: Lease, ttl_s: float) -> bool:
        with self._database.transaction(writes=True) as execute:
            ends = f"UPDATE state_leases SET ends = {self._database.now} + ? WHERE name = ? AND token = ?"
            return bool(execute(f"{ends} RETURNING token", (ttl_s, *lease)))

    def _hold(self, execute: Execute, fence: Lease) -> None:
        # The row's lock keeps another holder from getting the lease before this change is there.
        held = f"SELECT token FROM state_leases WHERE name = ? AND token = ?{self._database.share}"
        if not execute(held, fence):
            raise FencedError(f"{fence.name}: somebody else has got the lease")

    def _change(self, execute: Execute, key: str, expected: int | None, value: bytes | None, by: str, kept: int) -> int:
        if expected is None:
            rows = execute(
                "INSERT INTO state VALUES (?, 1, ?) ON CONFLICT (key) DO UPDATE SET version = state.version + 1, "
                "body = excluded.body WHERE state.body IS NULL RETURNING version",
                (key, value),
            )
        else:
            rows = execute(
                "UPDATE state SET version = version + 1, body = ? "
                "WHERE key = ? AND version = ? AND body IS NOT NULL RETURNING version",
                (value, key, expected),
            )
        if not rows:
            raise StaleError(key, expected)
        version: int = rows[0][0]
        change = f"INSERT INTO state_changes VALUES (?, ?, ?, {self._database.now}, ?)"
        execute(change, (key, version, value, by[:MAX_BY_CHARS]))
        execute("DELETE FROM state_changes WHERE key = ? AND version <= ?", (key, version - kept))
        return version


def _database_of(url: str) -> Database:
    if url.startswith(_FILE) and len(url) > len(_FILE):
        return SqliteDatabase(Path(url.removeprefix(_FILE)))
    if url.startswith(_SERVER):
        return PostgresDatabase(url)
    raise FieldError("state", wanted="sqlite:///path or postgresql://host/database", got=Words("another address"))


def _range(prefix: str) -> tuple[str, str]:
    return prefix, f"{prefix}\U0010ffff"


def _check(key: str, value: bytes | None) -> None:
    if not 0 < len(key) <= MAX_KEY_CHARS or not key.isprintable():
        raise FieldError("key", wanted=f"1 to {MAX_KEY_CHARS} printable characters", got=len(key))
    if value is not None and len(value) > MAX_VALUE_BYTES:
        raise FieldError(key, wanted=f"at most {MAX_VALUE_BYTES:,} bytes", got=len(value))
