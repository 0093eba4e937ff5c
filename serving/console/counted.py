"""The lake's counts of loops, for pages that may not wait for them: a thread counts while somebody looks.

A loop with thousands of files takes a good part of a second to count. So each is counted again after five seconds, or
after twenty times as long as it took, and a page shows the last counts; only for the first ones it waits a moment.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from serving.core import Core
from serving.refresher import Refresher

EVERY_S, SHARE = 5.0, 20.0
_WATCHED_S, _PATIENCE_S, _LOOK_S = 120.0, 0.15, 0.5


class _Kept(NamedTuple):
    counts: dict[str, Any] | None
    at: float
    took: float


class Counted:
    """The counts of all loops that are looked at.

    Args:
        core: of the service.
        clock: monotonic seconds.
    """

    def __init__(self, core: Core, clock: Callable[[], float] = time.monotonic) -> None:
        self._core, self._clock = core, clock
        self._kept: dict[str, _Kept] = {}
        self._wanted: dict[str, float] = {}
        self._changed = threading.Condition()
        self._refresher = Refresher("console counts", self.count, period_s=_LOOK_S, at_once=True)
        self._started = False

    def close(self) -> None:
        """Stop counting."""
        self._refresher.close()

    def of(self, loop: str) -> dict[str, Any] | None:
        """Return a loop's last counts; None while there are none, or no lake is there.

        Whoever asks first waits .15 s for them, and nobody after that.
        """
        with self._changed:
            new = loop not in self._wanted
            self._wanted[loop] = self._clock()
            if not self._started:
                self._started = True
                self._refresher.start()
            if new and loop not in self._kept:
                self._changed.wait_for(lambda: loop in self._kept, _PATIENCE_S)
            kept = self._kept.get(loop)
        return None if kept is None else kept.counts

    def count(self) -> None:
        """Count the loops that were looked at in the last two minutes and whose counts are old."""
        now = self._clock()
        with self._changed:
            wanted = [loop for loop, at in self._wanted.items() if now - at <= _WATCHED_S]
        for loop in wanted:
            kept = self._kept.get(loop)
            begun = self._clock()
            if kept is not None and begun - kept.at < max(EVERY_S, SHARE * kept.took):
                continue
            counts = self._core.counters(loop)
            with self._changed:
                self._kept[loop] = _Kept(counts, self._clock(), self._clock() - begun)
                self._changed.notify_all()
