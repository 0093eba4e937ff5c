"""The embedded log, trimmed: messages go that are old and that everyone who reads them has read.

A message stays until the lake has committed it, the memories of users have read it, and nobody asks the service about
it by its event id any more: for `retention.log_days`, and for as long as a reward may still be reported. A record of a
slate leaves out what stands in the record of its first slot, so that stays until the whole slate is in the lake.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import NamedTuple

from pipelines.ingestion.behind import mark_of_log
from pipelines.lake.tables import Tables, mark_of
from pipelines.log.protocol import DECISIONS, TOPICS
from pipelines.log.slates import LOOK_BACK, begin_of_slate
from pipelines.log.sqlite.log import LocalLog
from pipelines.online.connection import open_online
from pipelines.settings import LoopSettings, Settings

_DAY_S = 86_400.0


class Cut(NamedTuple):
    """How much of a partition may go.

    Attributes:
        topic: of the log.
        partition: of the topic.
        before: messages below this offset may go.
        held_by: who has not read them, where messages that are old enough stay for it; "" where none do.
    """

    topic: str
    partition: int
    before: int
    held_by: str


def cuts(
    settings: Settings,
    log: LocalLog,
    tables: Tables,
    loops: Iterable[LoopSettings],
    *,
    days: int,
    now: datetime,
) -> list[Cut]:
    """Return how much of each partition of the log may go.

    Args:
        settings: the installation.
        log: its embedded log.
        tables: the lake's.
        loops: all of its loops.
        days: age from which on messages may go.
        now: the time.

    Raises:
        LogError: the log does not answer.
        OSError: a file of memories cannot be read.
    """
    loops = list(loops)
    reading = list(_readers(settings, log, loops))
    age_s = max([days * _DAY_S, *(loop.reward.window_s + _DAY_S for loop in loops)])
    newest_ms = _newest_ms(log)
    if newest_ms is None:
        return []
    # from the newest message where the clock says more: a clock that runs ahead makes nothing old
    old_ms = int(min(now.timestamp() * 1000, newest_ms) - age_s * 1000)
    found: list[Cut] = []
    for topic in TOPICS:
        table = tables.table(topic)
        ours = mark_of(table, "log") == mark_of_log(log)
        for partition in range(log.partitions(topic)):
            old = log.offset_at(topic, partition, old_ms)
            low, high = log.watermarks(topic, partition)
            committed = (mark_of(table, f"{topic}/{partition}") or 0) if ours else 0
            limits = {"the lake": committed - LOOK_BACK if topic == DECISIONS and committed < high else committed}
            limits |= {name: read.get((topic, partition), 0) for name, read in reading}
            held_by, limit = min(limits.items(), key=lambda entry: entry[1])
            before = begin_of_slate(log, topic, partition, max(low, min(old, limit)))
            found.append(Cut(topic, partition, before, held_by if max(low, limit) < old else ""))
    return found


def _newest_ms(log: LocalLog) -> int | None:
    """Return when the log's newest message was appended, in milliseconds since 1970."""
    ends = [(topic, each, log.watermarks(topic, each)) for topic in TOPICS for each in range(log.partitions(topic))]
    last = [log.read(topic, each, high - 1, max_messages=1) for topic, each, (low, high) in ends if high > low]
    return max((message.ts_ms for (message,) in last), default=None)


def _readers(
    settings: Settings, log: LocalLog, loops: Iterable[LoopSettings]
) -> Iterator[tuple[str, Mapping[tuple[str, int], int]]]:
    """Yield the memories that are made from the log, with how far each has read it."""
    from pipelines.trajectories.memories import MEMORIES, positions_in  # imports arrays

    online = open_online(settings)
    try:
        for loop in loops:
            name = f"the memories of {loop.name}"
            path = settings.loop_path(loop.name).parent / MEMORIES
            wanted = loop.policy.oracle == "session"
            if path.is_file():
                yield name, positions_in(path)
            elif online is not None and wanted:
                from pipelines.trajectories.shared_memories import SharedMemories

                yield name, SharedMemories(online, loop.name, loop.reward.window_s).positions(log) or {}
            elif wanted:
                yield name, {}
    finally:
        if online is not None:
            online.close()
