"""State: what all machines of an installation must agree on, as a versioned map.

Correctness is `State.put` with the version that was read: of two that change a key from the same version, one wins and
the other is told. A lease only saves work, since its holder may sleep past its end and wake; where that would hurt, its
token goes along with a change as the fence, and a change by a former holder is refused.

The map is a table of a database, SQLite in the home folder or PostgreSQL, with the same statements for both. Times are
the database's own, so clocks of machines do not matter.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import NamedTuple, Self
from weakref import finalize

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection
from sqlalchemy.exc import SQLAlchemyError

from decision.errors import FieldError
from pipelines.state.database import WRITES, open_database

MAX_KEY_CHARS, MAX_VALUE_BYTES, MAX_BY_CHARS = 300, 4 << 20, 200
KEPT_VERSIONS = 1_000
"""Changes of a key whose values are kept."""

_KEY = sa.String(MAX_KEY_CHARS).with_variant(postgresql.VARCHAR(MAX_KEY_CHARS, collation="C"), "postgresql")
"""Ordered by code points in either database, so that a prefix is a range of the index."""
_metadata = sa.MetaData()
_entries = sa.Table(
    "state",
    _metadata,
    sa.Column("key", _KEY, primary_key=True),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("body", sa.LargeBinary),  # null: removed
)
_changes = sa.Table(
    "state_changes",
    _metadata,
    sa.Column("key", _KEY, primary_key=True),
    sa.Column("version", sa.BigInteger, primary_key=True),
    sa.Column("body", sa.LargeBinary),
    sa.Column("at", sa.Float(53), nullable=False),  # seconds since 1970
    sa.Column("by", sa.String(MAX_BY_CHARS), nullable=False),
)
_leases = sa.Table(
    "state_leases",
    _metadata,
    sa.Column("name", sa.String(MAX_KEY_CHARS), primary_key=True),
    sa.Column("token", sa.BigInteger, nullable=False),
    sa.Column("holder", sa.String(MAX_BY_CHARS), nullable=False),
    sa.Column("ends", sa.Float(53), nullable=False),
)
_NOW = {
    "sqlite": "(julianday('now') - 2440587.5) * 86400.0",
    "postgresql": "extract(epoch from clock_timestamp())",
}
"""Seconds since 1970, by the database's clock."""
_CREATION = 0x73746174  # any constant: the key of PostgreSQL's advisory lock around the making of the tables


class StateError(RuntimeError):
    """The database cannot be reached, or does not do what it is told."""


class StaleError(StateError):
    """A key is not at the version that was expected; read it and decide again."""

    def __init__(self, key: str, expected: int | None) -> None:
        super().__init__(f"{key}: expected {'nothing there' if expected is None else f'version {expected}'}")
        self.key, self.expected = key, expected


class FencedError(StateError):
    """The lease that was to fence a change has another holder by now."""


class Entry(NamedTuple):
    """What stands under a key."""

    version: int
    value: bytes


class Change(NamedTuple):
    """One change of a key; the value is None where it was removed, or is no longer kept."""

    version: int
    value: bytes | None
    at: datetime
    by: str


class Lease(NamedTuple):
    """A lease that was got; the token grows with every holder."""

    name: str
    token: int


class State:
    """The map of one installation; safe to share between threads, a context manager.

    Args:
        url: SQLAlchemy address of the database, SQLite or PostgreSQL.

    Raises:
        FieldError: the address is none, or its driver is missing.
    """

    def __init__(self, url: str) -> None:
        self._engine = open_database(url, "state")
        self._sqlite = self._engine.dialect.name == "sqlite"
        if self._engine.dialect.name not in _NOW:
            raise FieldError.choice("state", list(_NOW), self._engine.dialect.name)
        seconds = (
            "(julianday('now') - 2440587.5) * 86400.0" if self._sqlite else "extract(epoch from clock_timestamp())"
        )
        self._now = sa.literal_column(seconds, sa.Float)
        self._made = False
        finalize(self, self._engine.dispose)  # whoever forgets to close it leaves no connection open

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"State({self._engine.url.render_as_string(hide_password=True)!r})"

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    def get(self, key: str) -> Entry | None:
        """Return what stands under `key`.

        Raises:
            StateError: the database cannot be reached; likewise from every other method.
        """
        return self.entries(key, exact=True).get(key)

    def entries(self, prefix: str, *, exact: bool = False) -> dict[str, Entry]:
        """Return what stands under every key that begins with `prefix`, by key; one query."""
        found = sa.select(_entries).where(_entries.c.body.is_not(None), _within(prefix, exact=exact))
        with self._reading() as connection:
            return {row.key: Entry(row.version, bytes(row.body)) for row in connection.execute(found)}

    def versions(self, prefix: str) -> dict[str, int]:
        """Return the version of every key that begins with `prefix`, by key; removed ones are not there."""
        found = sa.select(_entries.c.key, _entries.c.version)
        found = found.where(_entries.c.body.is_not(None), _within(prefix, exact=False))
        with self._reading() as connection:
            return {row.key: row.version for row in connection.execute(found)}

    def put(
        self, changes: Mapping[str, tuple[int | None, bytes | None]], *, by: str = "", fence: Lease | None = None
    ) -> dict[str, int]:
        """Change keys, all of them or none, and return their new versions.

        Args:
            changes: {key: (expected, value)}; expected is the version that was read, None for a key that is not there;
                a value of None removes it.
            by: who does it; kept with the change.
            fence: refuse the change unless nobody got this lease since.

        Raises:
            FieldError: a key or value is too large.
            StaleError: a key is not at its expected version; nothing was changed.
            FencedError: the lease has another holder by now; nothing was changed.
        """
        for key, (_, value) in changes.items():
            _check(key, value)
        with self._writing() as connection:
            if fence is not None:
                self._hold(connection, fence)
            return {key: self._change(connection, key, *changes[key], by) for key in sorted(changes)}

    def history(self, key: str) -> list[Change]:
        """Return the latest `KEPT_VERSIONS` changes of `key`, oldest first."""
        found = sa.select(_changes).where(_changes.c.key == key).order_by(_changes.c.version)
        with self._reading() as connection:
            return [
                Change(
                    row.version,
                    None if row.body is None else bytes(row.body),
                    datetime.fromtimestamp(row.at, UTC),
                    row.by,
                )
                for row in connection.execute(found)
            ]

    def acquire(self, name: str, ttl_s: float, *, holder: str = "") -> Lease | None:
        """Return the lease `name` for `ttl_s` seconds, None while somebody else has it."""
        _check(name, None)
        values = {"name": name, "token": 1, "holder": holder[:MAX_BY_CHARS], "ends": self._now + ttl_s}
        insert = self._insert(_leases).values(values)
        taken = insert.on_conflict_do_update(
            index_elements=["name"],
            set_={"token": _leases.c.token + 1, "holder": insert.excluded.holder, "ends": insert.excluded.ends},
            where=_leases.c.ends <= self._now,
        ).returning(_leases.c.token)
        with self._writing() as connection:
            token = connection.execute(taken).scalar()
        return None if token is None else Lease(name, token)

    def renew(self, lease: Lease, ttl_s: float) -> bool:
        """Extend a lease to `ttl_s` seconds from now, and return whether it is still ours."""
        return self._end(lease, self._now + ttl_s)

    def release(self, lease: Lease) -> bool:
        """Give a lease back, and return whether it was still ours."""
        return self._end(lease, sa.literal(0.0))

    def _end(self, lease: Lease, ends: sa.ColumnElement[float]) -> bool:
        ours = (_leases.c.name == lease.name) & (_leases.c.token == lease.token)
        moved = sa.update(_leases).where(ours).values(ends=ends).returning(_leases.c.token)
        with self._writing() as connection:
            return connection.execute(moved).scalar() is not None

    def _hold(self, connection: Connection, fence: Lease) -> None:
        # On PostgreSQL the row's lock keeps another holder from getting the lease before this change is there.
        ours = (_leases.c.name == fence.name) & (_leases.c.token == fence.token)
        if connection.execute(sa.select(_leases.c.token).where(ours).with_for_update(read=True)).scalar() is None:
            raise FencedError(f"{fence.name}: somebody else has got the lease")

    def _change(self, connection: Connection, key: str, expected: int | None, value: bytes | None, by: str) -> int:
        if expected is None:
            insert = self._insert(_entries).values(key=key, version=1, body=value)
            done = insert.on_conflict_do_update(
                index_elements=["key"],
                set_={"version": _entries.c.version + 1, "body": insert.excluded.body},
                where=_entries.c.body.is_(None),
            ).returning(_entries.c.version)
        else:
            there = (_entries.c.key == key) & (_entries.c.version == expected) & _entries.c.body.is_not(None)
            done = sa.update(_entries).where(there).values(version=expected + 1, body=value)
            done = done.returning(_entries.c.version)
        version = connection.execute(done).scalar()
        if version is None:
            raise StaleError(key, expected)
        kept = {"key": key, "version": version, "body": value, "at": self._now, "by": by[:MAX_BY_CHARS]}
        connection.execute(sa.insert(_changes).values(kept))
        past = (_changes.c.key == key) & (_changes.c.version <= version - KEPT_VERSIONS)
        connection.execute(sa.delete(_changes).where(past))
        return version

    def _insert(self, table: sa.Table) -> sqlite.Insert | postgresql.Insert:
        return sqlite.insert(table) if self._sqlite else postgresql.insert(table)

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with _mapped():
            self._make()
            with self._engine.connect() as connection:
                yield connection

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with _mapped():
            self._make()
            with self._engine.connect().execution_options(**{WRITES: True}) as connection, connection.begin():
                yield connection

    def _make(self) -> None:
        if self._made:
            return
        with self._engine.connect().execution_options(**{WRITES: True}) as connection, connection.begin():
            if not self._sqlite:
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_CREATION)))
            _metadata.create_all(connection)
        self._made = True


def _within(prefix: str, *, exact: bool) -> sa.ColumnElement[bool]:
    """Return the condition for a key, or for those that begin with `prefix`: a range of the index."""
    if exact:
        return _entries.c.key == prefix
    return (_entries.c.key >= prefix) & (_entries.c.key < f"{prefix}\U0010ffff")


def _check(key: str, value: bytes | None) -> None:
    if not 0 < len(key) <= MAX_KEY_CHARS:
        raise FieldError("key", wanted=f"1 to {MAX_KEY_CHARS} characters", got=len(key))
    if value is not None and len(value) > MAX_VALUE_BYTES:
        raise FieldError(key, wanted=f"at most {MAX_VALUE_BYTES:,} bytes", got=len(value))


@contextmanager
def _mapped() -> Iterator[None]:
    try:
        yield
    except SQLAlchemyError as error:
        raise StateError(str(error).partition("\n")[0]) from error
