"""What the log of commits says of each file, by which files are skipped and their rows counted.

Nothing here imports a library that holds rows in Python.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from deltalake import DeltaTable

STATISTICS = ("offset", "ts", "appended_at", "event_id")
"""Columns by whose smallest and largest value files are skipped."""

APART = ("state", "reason")
"""Columns of the interactions that have one value in a file. Its name says which, and so the log of commits how many
rows have it. Statistics cannot: files of earlier releases have none of these columns, and would be skipped for it."""

_SAID = re.compile(r"[a-z_]{1,64}")


def actions_of(table: DeltaTable) -> list[dict[str, Any]]:
    """Return what the log of commits says of each file of the table: its path, size, partition and statistics."""
    found: Any = table.get_add_actions(flatten=True)
    return found.to_struct_array().to_pylist()


def name_of(values: Sequence[str | None]) -> str:
    """Return what the name of a file says of its values of `APART`: nothing where they are no plain words."""
    found = [value for value in values if value is not None] if values[0] is not None else []
    return "".join(f".{value}" for value in found) if all(map(_SAID.fullmatch, found)) else ""


def one_value(path: str) -> tuple[str, ...] | None:
    """Return the values of `APART` that all rows of a file of the interactions have, None where it does not say so."""
    return tuple(path.rpartition("/")[2].split(".")[1:-1]) or None
