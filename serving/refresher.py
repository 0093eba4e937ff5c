"""A thread that keeps something fresh: it survives whatever its work raises, says so, and shows that it is alive."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from serving import metrics

_log = logging.getLogger(__name__)
_PERIODS = 10
_JOIN_S = 10.0
_FIRST_S = 60.0


class Refresher:
    """Calls a function again and again in a thread of its own.

    Args:
        name: of the thread, as metrics and log lines name it.
        work: what is called; it may call `beat` while it gets on.
        period_s: pause between two calls, in seconds.
        late_after_s: age at which the heartbeat is late, in seconds; ten periods when None. The first call may take a
            minute: it imports libraries.
        clock: monotonic seconds.
        at_once: whether the first call comes before the first pause.

    Attributes:
        first: no call has ended well yet.
        failures: calls that raised.
        rounds: calls that ended, well or not.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[], object],
        *,
        period_s: float,
        late_after_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        at_once: bool = False,
    ) -> None:
        self.name, self._at_once = name, at_once
        self._work, self._period_s, self._clock = work, period_s, clock
        self._late_after_s = _PERIODS * period_s if late_after_s is None else late_after_s
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._last = ""
        self.first = True
        self.failures = self.rounds = 0
        self._beat = clock()

    def start(self) -> None:
        """Start the thread."""
        metrics.thread_failures(self.name, 0)  # made now: making it later takes a file, and there may be none left
        self.beat()
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop, and wait for the call that runs; does nothing when it was closed before."""
        self._stop.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=_JOIN_S)

    def beat(self) -> None:
        """Show that the work gets on."""
        self._beat = self._clock()

    @property
    def age_s(self) -> float:
        """Seconds since the work last got on."""
        return max(0.0, self._clock() - self._beat)

    @property
    def late(self) -> bool:
        """Whether the heartbeat is too old, so that what is kept must be taken for stale."""
        limit = max(self._late_after_s, _FIRST_S) if self.first else self._late_after_s
        return self._thread is not None and self.age_s > limit

    def _run(self) -> None:
        pause_s = 0.0 if self._at_once else self._period_s
        while not self._stop.wait(pause_s):
            pause_s = self._period_s
            try:
                self._work()
                self.beat()
                self.first, self._last = False, ""
            except Exception as error:
                self.failures += 1
                with suppress(Exception):  # telling of it may need what is lacking: a descriptor, memory
                    self._tell(error)
            self.rounds += 1

    def _tell(self, error: Exception) -> None:
        metrics.thread_failures(self.name)
        told = f"{type(error).__name__}: {error}"
        if told != self._last:  # once for each reason, not once a period
            self._last = told
            fields = {"thread": self.name, "failures": self.failures}
            _log.warning("failed, goes on", extra={"fields": fields}, exc_info=error)
