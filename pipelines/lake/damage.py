"""Tables that something else than this code changed: what is wrong with them, and what to do.

Every page of a file carries a checksum, which is compared at every read, and a file lies where its partition says. Who
can write both files and log consistently can still forge history: see SECURITY.md.
"""

from __future__ import annotations

import re
import time
from typing import Any

from deltalake import DeltaTable

_SEARCH_S = 60.0


class DamagedError(OSError):
    """A table is not as it was written."""

    def __init__(self, table: str, what: object) -> None:
        self.table = table
        text = " ".join(str(what).split())[:300]
        super().__init__(
            f"the table {table!r} is damaged: {text}. Something else than this service changed its files: restore "
            "them from a backup (infra/docs/operations.md), then run `decision verify`; nothing is learned meanwhile"
        )


class LostError(DamagedError, FileNotFoundError):
    """A file that the table's log names is gone."""


def check_places(table: DeltaTable, name: str) -> None:
    """Refuse a log of commits that names files elsewhere than in the partition that it says they are of.

    Raises:
        DamagedError: it does; a loop would read another's rows as its own.
    """
    import pyarrow as pa  # only who reads rows needs it
    import pyarrow.compute as pc

    actions: Any = pa.table(table.get_add_actions(flatten=True))
    by = table.metadata().partition_columns
    pattern = "".join(f"{re.escape(column)}=(?P<{column}>[^/]*)/" for column in by)
    paths = actions["path"]
    parts = pc.call_function("extract_regex", [paths], pc.ExtractRegexOptions(f"^{pattern}[^/]+[.]parquet$"))
    fits = pc.call_function("is_valid", [parts])
    for column in by:
        said = actions[f"partition.{column}"].cast("string")
        lies = pc.call_function("struct_field", [parts], pc.StructFieldOptions([column]))
        same = pc.call_function("equal", [lies, said])
        fits = pc.call_function("and_kleene", [fits, pc.fill_null(same, False)])
    if len(paths) and not fits.to_numpy(zero_copy_only=False).all():
        wrong = paths.filter(pc.call_function("invert", [fits]))[0].as_py()
        raise DamagedError(name, f"its log has the file {wrong!r} in another partition than it lies in")


def unreadable(table: DeltaTable) -> str | None:
    """Return the first file of a table that cannot be read, and why; None where a minute's search finds none."""
    ends = time.monotonic() + _SEARCH_S
    for fragment in table.to_pyarrow_dataset().get_fragments():
        if time.monotonic() > ends:
            break
        try:
            for _ in fragment.to_batches():
                pass
        except (OSError, ValueError) as error:
            return f"{fragment.path}: {error}"
    return None
