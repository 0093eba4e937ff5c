"""How far behind, or how near to its end, something is that a replica rests on; for `/metrics`.

The gauges are set by threads, not when they are asked for, so that a scrape waits for nothing. All workers of a replica
see the same, so the most recent value is taken.
"""

from __future__ import annotations

import math
import shutil
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from decision.guard.snapshot import largest_weight_at
from pipelines.ingestion.forward import to_forward
from pipelines.log.open import open_log
from pipelines.log.protocol import EventLog
from pipelines.log.sqlite.log import LocalLog
from pipelines.retention.space import disk_bytes
from pipelines.settings import Settings
from serving import metrics
from serving.loops import Loops

if TYPE_CHECKING:
    from pipelines.lake.tables import Tables

_EVERY_S = 5.0
_DISK_EVERY_S, _REST_S = 300.0, 0.01
INGEST_EVERY_S = 15.0


class IngestLag:
    """Sets how far the lake is behind the event log: what followers have before them.

    Broker and object storage are asked, and may be away: its thread is no other's.

    Args:
        settings: the installation.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._log: EventLog | None = None
        self._tables: Tables | None = None

    def observe(self) -> None:
        """Set the gauge; raises as `messages`."""
        metrics.gauge("ingest_lag", self.messages())

    def messages(self) -> int:
        """Return the messages on the log that the lake does not have yet.

        Raises:
            LogError: the log does not answer.
            OSError: the lake does not.
        """
        from pipelines.ingestion.behind import ends_of, to_ingest  # imports the lake
        from pipelines.lake.tables import Tables

        self._log = self._log or open_log(self._settings.log_url)
        self._tables = self._tables or Tables(self._settings.lake_url)
        return sum(to_ingest(ends_of(self._log), self._tables).values())

    def close(self) -> None:
        """Close the connections."""
        if self._log is not None:
            self._log.close()


class DiskUse:
    """Sets how much space each part of the installation takes; among many files slowly, so that requests go first.

    Args:
        settings: the installation.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._closed = threading.Event()
        self._measured = -_DISK_EVERY_S

    def observe(self) -> None:
        """Set the gauges, every five minutes at most."""
        now = time.monotonic()
        if now - self._measured < _DISK_EVERY_S:
            return
        self._measured = now
        for part, size in disk_bytes(self._settings, lambda: self._closed.wait(_REST_S)).items():
            metrics.gauge("disk_bytes", size, part)

    def close(self) -> None:
        """Have a look that is under way wait for nothing more."""
        self._closed.set()


class Lags:
    """Sets the gauges of one replica.

    Args:
        settings: the installation.
        log: its spool.
        loops: its loops.
        clock: seconds since 1970.
    """

    def __init__(self, settings: Settings, log: LocalLog, loops: Loops, clock: Callable[[], float]) -> None:
        self._settings, self._log, self._loops, self._clock = settings, log, loops, clock
        self._observed = -_EVERY_S

    def observe(self) -> None:
        """Set the gauges, every five seconds at most.

        Raises:
            LogError: the spool cannot be read.
            OSError: the home folder cannot be looked at.
        """
        now = time.monotonic()
        if now - self._observed < _EVERY_S:
            return
        self._observed = now
        disk = shutil.disk_usage(self._settings.root)
        metrics.gauge("disk_free_ratio", disk.free / disk.total)
        metrics.gauge("forward_lag", self.to_forward())
        for name in self._loops.names():
            snapshot = self._loops.get(name)
            guard = None if snapshot is None or snapshot.candidate is None else snapshot.guard
            now_s = self._clock()
            metrics.gauge("guard_left_seconds", math.inf if guard is None else guard.expires_at - now_s, name)
            metrics.gauge("guard_weight", 0.0 if guard is None else largest_weight_at(guard, now_s), name)

    def to_forward(self) -> int:
        """Return the messages in the spool that the event log does not have yet; 0 where nothing is forwarded."""
        if self._settings.log == "local:" or self._settings.ack != "disk":
            return 0
        return to_forward(self._log)
