"""How far the lake is behind the log. Nothing here imports a library that holds rows in Python."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import TYPE_CHECKING, Literal

from pipelines.lake.tables import Tables, mark_of

if TYPE_CHECKING:
    from pipelines.log.protocol import EventLog

_TOPICS: tuple[Literal["decisions", "outcomes"], ...] = ("decisions", "outcomes")
_PAUSE_S = 0.2

Ends = Mapping[tuple[Literal["decisions", "outcomes"], int], tuple[int, int]]
"""First offset of each topic and partition, and the one after its last."""


def mark_of_log(log: EventLog) -> int:
    """Return the value of the mark ``log`` of a lake that is filled from `log`.

    Raises:
        LogError: the log does not answer.
    """
    return int.from_bytes(blake2b(log.identity().encode(), digest_size=7).digest(), "big")


def ends_of(log: EventLog) -> Ends:
    """Return where the partitions of the log begin and end now.

    Raises:
        LogError: the log does not answer.
    """
    return {
        (topic, number): log.watermarks(topic, number) for topic in _TOPICS for number in range(log.partitions(topic))
    }


def to_ingest(ends: Ends, tables: Tables) -> dict[str, int]:
    """Return how many messages below `ends` are not in the lake, by topic."""
    found: dict[str, int] = {}
    for topic in _TOPICS:
        table = tables.table(topic)
        left = [
            max(0, end - max(start, mark_of(table, f"{topic}/{number}") or 0))
            for (of, number), (start, end) in ends.items()
            if of == topic
        ]
        found[topic] = sum(left)
    return found


def caught_up(ends: Ends, tables: Tables, *, patience_s: float, pause: Callable[[float], object] = time.sleep) -> bool:
    """Wait until others have brought in what lies below `ends`, while they get on; return whether they did.

    Args:
        ends: where the log ends.
        tables: the lake's.
        patience_s: how long to wait without any of it coming in, in seconds.
        pause: waits for so many seconds.
    """
    left, waited = sum(to_ingest(ends, tables).values()), 0.0
    while left and waited < patience_s:
        pause(_PAUSE_S)
        now = sum(to_ingest(ends, tables).values())
        left, waited = now, 0.0 if now < left else waited + _PAUSE_S
    return not left
