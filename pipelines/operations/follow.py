"""The follower: brings what comes onto the log into the lake, joins it, pushes features and merges small files.

Any number of followers share the partitions of a log; each may be killed at any moment. `now` is taken before
ingesting, so that an outcome which came in time is in the lake before its decision is settled.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from pipelines.ingestion.ingest import Ingested, Ingester
from pipelines.ingestion.ownership import LEASE_S, Ownership
from pipelines.interactions.join import join
from pipelines.lake.lake import ConflictError
from pipelines.lake.schemas import Table
from pipelines.log.protocol import DECISIONS, LogUnavailable
from pipelines.operations.installation import Installation
from pipelines.progress import Progress, silent
from pipelines.remedies import told
from pipelines.state.failures import StateError
from pipelines.state.state import State

_log = logging.getLogger(__name__)

COMPACT_EVERY_S = 3600.0
_ROWS_PER_COMMIT = 200_000
"""Commits are made by time; this only bounds what is behind."""
_JOIN_EVERY_S = 10.0
_FORWARDED_S = 60.0
"""How long an outcome may take from a spool to the log before its decision is settled without it."""
_TABLES: tuple[Table, ...] = ("decisions", "outcomes", "interactions")


class Follower:
    """One follower of an installation's log; a context manager that gives its partitions back.

    Args:
        parts: the installation.
        state: where followers agree on who does what.
        clock: seconds that never go backwards.
        lease_s: how long its partitions wait for another follower when this one was killed, in seconds.
        progress: told of the messages that were ingested.
    """

    def __init__(
        self,
        parts: Installation,
        state: State,
        *,
        clock: Callable[[], float] = time.monotonic,
        lease_s: float = LEASE_S,
        progress: Progress = silent,
    ) -> None:
        self.total = Ingested()
        self._parts, self._clock, self._progress = parts, clock, progress
        self._state, self._lease_s, self._renew_s = state, lease_s, lease_s / 3
        self._ownership: Ownership | None = None  # until the log has said how many partitions there are
        self._renewed = self._joined = float("-inf")
        self._compacted = clock()
        self._spooled = parts.settings.log != "local:"
        self._what: tuple[list[int], list[str]] = [], []
        self._ingester: Ingester | None = None

    def __enter__(self) -> Follower:
        return self

    def __exit__(self, *error: object) -> None:
        if self._ownership is not None:
            self._ownership.close()

    def round(self, now: datetime) -> Ingested:
        """Bring in what the log holds now, settle what is mature at `now`, push features; return what was ingested.

        Raises:
            LogError: the log does not answer.
            StateError: State does not, which has the settings of the loops where machines share them.
            ConflictError: others kept committing; run it again.
            IngestError: log and lake do not fit together.
        """
        partitions, parts = self._partitions(), self._parts
        done = Ingested()
        if not partitions:
            return done
        if self._ingester is None or self._what != (partitions, parts.loops):
            self._what = partitions, parts.loops
            self._ingester = Ingester(
                parts.log,
                parts.lake,
                loops=parts.loops or None,
                partitions=partitions,
                rows_per_commit=_ROWS_PER_COMMIT,
            )
        done = self._ingester.run(progress=self._beat)
        self.total += done
        if self._clock() - self._joined >= _JOIN_EVERY_S:
            mature = now - timedelta(seconds=_FORWARDED_S if self._spooled else 0.0)
            for loop in parts.readable().values():
                join(parts.lake, loop, mature, partitions=partitions, progress=self._beat)
            self._joined = self._clock()
        if 0 in partitions:  # what concerns all partitions, one of the followers does
            parts.push_features(self._beat)
            if self._clock() - self._compacted >= COMPACT_EVERY_S:
                for table in _TABLES:
                    parts.lake.compact(table)
                    self._beat()
                self._compacted = self._clock()
        self._progress("messages ingested", self.total.messages)
        return done

    def run(self, every_s: float, stop: threading.Event) -> Ingested:
        """Follow the log until `stop` is set, by a round every `every_s` seconds; return what was ingested.

        A log or State that is away and a lake where others keep committing are waited for. Errors as `round`.
        """
        while not stop.is_set():
            begun = self._clock()
            try:
                self.round(datetime.now(UTC))
            except (LogUnavailable, StateError, ConflictError, OSError) as error:
                _log.warning("not followed, trying again: %s", told(error, self._parts.settings))
            rest = begun + every_s - self._clock()
            while rest > 0 and not stop.wait(min(rest, self._renew_s)):
                if self._ownership is not None:
                    self._beat()
                rest = begun + every_s - self._clock()
        return self.total

    def _partitions(self) -> list[int]:
        self._renewed = self._clock()
        if self._ownership is None:
            partitions = self._parts.log.partitions(DECISIONS)
            self._ownership = Ownership(self._state, partitions, lease_s=self._lease_s)
        return self._ownership.renew()

    def _beat(self, *_: object) -> None:
        if self._clock() - self._renewed >= self._renew_s:
            self._partitions()
