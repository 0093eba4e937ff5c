"""What the service did of late, from the counters of `/metrics`: a thread reads them while somebody looks.

The counters are of all workers of this machine, so whichever worker is asked shows the same.
"""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from serving import metrics
from serving.core import Core
from serving.refresher import Refresher

PERIOD_S = 5.0
WINDOW_S = 60.0
_WATCHED_S = 120.0
_LINE = re.compile(rb'^decision_(decided|repeated|outcomes|fallbacks)_total\{loop="([^"]+)"\} (\S+)$', re.MULTILINE)
_GAUGE = re.compile(
    rb"^decision_(spool_depth|spool_healthy|forward_lag|ingest_lag|disk_free_ratio) (\S+)$", re.MULTILINE
)


class Sample(NamedTuple):
    """The counters at one moment.

    Attributes:
        at: monotonic seconds.
        counted: {(what, loop): count since the service started}.
        gauges: {what: value}.
    """

    at: float
    counted: dict[tuple[str, str], float]
    gauges: dict[str, float]


class Rates:
    """Samples of the last minute.

    Args:
        core: whose gauges are observed before they are read.
        clock: monotonic seconds.
    """

    def __init__(self, core: Core, clock: Callable[[], float] = time.monotonic) -> None:
        self._core, self._clock = core, clock
        self._samples: deque[Sample] = deque(maxlen=int(WINDOW_S / PERIOD_S) + 2)
        self._watched = float("-inf")
        self._sampling = threading.Lock()
        self._refresher = Refresher("console", self._look, period_s=PERIOD_S)
        self._started = False

    def close(self) -> None:
        """Stop reading."""
        self._refresher.close()

    def watch(self) -> Sample:
        """Return the newest sample, at most `PERIOD_S` old, and go on reading for two minutes; blocking."""
        self._watched = self._clock()
        with self._sampling:
            if not self._started:
                self._started = True
                self._refresher.start()
            if not self._samples or self._clock() - self._samples[-1].at >= PERIOD_S:
                self._samples.append(self._sample())
            return self._samples[-1]

    def per_second(self, what: str, loop: str) -> float | None:
        """Return how many a second there were in the last minute, or since it was first looked; None right then."""
        kept = list(self._samples)
        if len(kept) < 2 or kept[-1].at <= kept[0].at:
            return None
        first = next((one for one in kept if kept[-1].at - one.at <= WINDOW_S), kept[0])
        if first is kept[-1]:
            first = kept[-2]
        more = kept[-1].counted.get((what, loop), 0.0) - first.counted.get((what, loop), 0.0)
        return max(more, 0.0) / (kept[-1].at - first.at)

    def _look(self) -> None:
        if self._clock() - self._watched <= _WATCHED_S:
            with self._sampling:
                self._samples.append(self._sample())

    def _sample(self) -> Sample:
        self._core.observe()
        return read(metrics.exposition(), self._clock())


def read(exposition: bytes, at: float) -> Sample:
    """Return the sample in Prometheus' text format."""
    counted = {(what.decode(), loop.decode()): float(value) for what, loop, value in _LINE.findall(exposition)}
    return Sample(at, counted, {what.decode(): float(value) for what, value in _GAUGE.findall(exposition)})
