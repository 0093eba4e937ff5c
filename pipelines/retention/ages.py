"""How old what loops share may become: as old as any of them asks for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pipelines.settings import LoopSettings

FOR_EVER = 0
"""The number of days that stands for no end."""


Shared = Literal["log_days", "lake_days", "imports_days", "access_days"]


def longest(loops: Iterable[LoopSettings], name: Shared) -> int:
    """Return the longest of an age that the loops' settings give, in days; `FOR_EVER` where one says so, or none is."""
    ages = [getattr(loop.retention, name) for loop in loops]
    return FOR_EVER if not ages or FOR_EVER in ages else max(ages)
