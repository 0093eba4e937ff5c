"""What the log of commits says of each file, by which files are skipped and their rows counted.

Nothing here imports a library that holds rows in Python.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deltalake import DeltaTable

STATISTICS = ("offset", "ts", "appended_at", "event_id")
"""Columns by whose smallest and largest value files are skipped."""

APART = ("state", "reason")
"""Columns of the interactions that have one value in a file, so that the log of commits says how many rows have it."""


def actions_of(table: DeltaTable) -> list[dict[str, Any]]:
    """Return what the log of commits says of each file of the table: its path, size, partition and statistics."""
    found: Any = table.get_add_actions(flatten=True)
    return found.to_struct_array().to_pylist()


def one_value(action: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return the values of `APART` that all rows of a file have, None where it does not say so.

    Args:
        action: of a file of the interactions, flattened.
    """
    found = [(action.get(f"min.{name}"), action.get(f"max.{name}")) for name in APART]
    if found[0][0] is None or any(low != high for low, high in found):
        return None
    return tuple(low for low, _ in found if low is not None)
