"""The last commit of each table that a night saw, noted in State: a log that was cut back or replaced is found out.

    lake/TABLE    the table's identity, a version of it, and the SHA-256 of the commit that made it

Who can write to the lake's files and not to State can take commits away or write others in their place, and Delta would
read that as the table. A night notes how it left the tables, and the next one begins by looking: one small file of each
table, not one more at every read. What is done to commits after the last night, before the next, is not seen by this.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec
from deltalake import DeltaTable

from decision.validation import prepared
from pipelines.lake.damage import DamagedError
from pipelines.lake.tables import Tables
from pipelines.state.change import change
from pipelines.state.rows import read_json
from pipelines.state.state import State

if TYPE_CHECKING:
    from pipelines.lake.schemas import Table

TABLES: tuple[Table, ...] = ("decisions", "outcomes", "interactions")
"""What a night leaves."""
_log = logging.getLogger(__name__)
_WAY_OUT = " (where an older lake was put there on purpose: `decision verify --accept-lake`)"


class Noted(msgspec.Struct, frozen=True, kw_only=True):
    """How a table stood.

    Attributes:
        table: its identity, which Delta gives it when it is made.
        version: its latest version.
        digest: SHA-256 of the commit that made the version, hex.
        at: when that was noted.
    """

    table: str
    version: int
    digest: str
    at: datetime


def check_noted(state: State, tables: Tables, names: Iterable[Table]) -> None:
    """Refuse tables whose log is not the one that was noted, or that it went on from.

    A table that was made anew since is told of in the log: that is what a lake is that was moved away.

    Raises:
        DamagedError: commits that were noted are gone, or others stand in their place.
        StateError: State cannot be reached.
    """
    for name in names:
        entry = state.get(_key(name))
        if entry is None:
            continue
        noted, table = read_json(_key(name), entry.value, Noted), tables.table(name)
        seen = f"at {noted.at:%Y-%m-%d %H:%M} UTC it was at version {noted.version}"
        if _identity(table) != noted.table:
            _log.warning("the table %s was made anew: %s, and is another one by now", name, seen)
            continue
        if table.version() < noted.version:
            raise DamagedError(name, f"its log was cut back: {seen}, and now is at {table.version()}{_WAY_OUT}")
        if _digest(tables, name, noted.version) not in (None, noted.digest):
            raise DamagedError(name, f"its log was replaced: {seen}, and that commit is another one now{_WAY_OUT}")


def note(state: State, tables: Tables, names: Iterable[Table], now: datetime, *, anew: bool = False) -> None:
    """Note how tables stand.

    Args:
        state: State.
        tables: the lake's.
        names: which of them.
        now: the time, UTC.
        anew: whatever was noted before; otherwise an earlier version does not take a later one's place.

    Raises:
        StateError: State cannot be reached.
    """
    for name in names:
        table = tables.table(name)
        version, identity = table.version(), _identity(table)
        digest = _digest(tables, name, version)
        if digest is None:  # its log was cleaned up to here: there will be a commit with the next rows
            continue
        mine = Noted(table=identity, version=version, digest=digest, at=now)

        def made(before: bytes | None, mine: Noted = mine) -> bytes | None:
            known = None if before is None else msgspec.json.decode(before, type=prepared(Noted))
            stays = known is not None and known.table == mine.table and known.version >= mine.version
            return before if stays and not anew else msgspec.json.encode(mine)

        change(state, _key(name), made, by="noted")


def _digest(tables: Tables, name: str, version: int) -> str | None:
    try:
        data = tables.storage.read(f"{name}/_delta_log/{version:020d}.json")
    except FileNotFoundError:  # past its retention, and in a checkpoint
        return None
    return hashlib.sha256(data).hexdigest()


def _identity(table: DeltaTable) -> str:
    return str(table.metadata().id)


def _key(name: str) -> str:
    return f"lake/{name}"
