"""One moment of several tables: versions that were the latest ones all at the same time.

One Delta table is a moment by itself; several are not, for each moves on alone. So all are opened and looked at again,
until a look finds none that moved since the look before: between the two, all stood as they were found. The rows are
read afterwards, from files that no later commit changes. Where an erasure took such files away, reading begins again
at a later moment.

References:
    Afek, Attiya, Dolev, Gafni, Merritt and Shavit, "Atomic snapshots of shared memory", 1993 (the double collect).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from deltalake import DeltaTable

from pipelines.lake.tables import Tables

if TYPE_CHECKING:
    from pipelines.lake.schemas import Table

_T = TypeVar("_T")
_LOOKS = 1_000


class NoMomentError(Exception):
    """The tables kept moving: there is no moment to read them at; ask again."""


def at_one_moment(
    lake: Tables, names: Sequence[Table], read: Callable[[Mapping[Table, DeltaTable]], _T], *, looks: int = _LOOKS
) -> _T:
    """Return what `read` makes of the tables at one moment.

    Args:
        lake: the tables.
        names: which of them.
        read: called with the tables as they stood at the moment, and again at a later one where files are gone.
        looks: how often the tables are looked at, at most; each look that fails means that somebody committed.

    Raises:
        NoMomentError: somebody committed between every two looks.
    """
    for _ in range(looks):
        tables: dict[Table, DeltaTable] = {name: lake.table(name) for name in names}
        versions = _versions(tables)
        for table in tables.values():
            table.update_incremental()
        if _versions(tables) != versions:
            continue
        try:
            return read(tables)
        except OSError:
            if all(lake.version(name) == table.version() for name, table in tables.items()):
                raise
    raise NoMomentError(f"{', '.join(names)}: somebody committed between every two of {looks} looks; ask again")


def _versions(tables: Mapping[Table, DeltaTable]) -> list[int]:
    return [table.version() for table in tables.values()]
