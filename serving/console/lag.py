"""How far the lake is behind the log, for a page."""

from __future__ import annotations

import logging
import threading
import time

from pipelines.remedies import told
from pipelines.storage import Storage
from serving.core import Core
from serving.lags import IngestLag

_log = logging.getLogger(__name__)
_LAG_S = 10.0


class Lag:
    """How far the lake is behind the log, at most ten seconds old; of a log that is no spool, a thread's gauge says it.

    Args:
        core: of the service.
    """

    def __init__(self, core: Core) -> None:
        self._settings = core.settings
        self._storage = Storage(core.settings.lake_url, persists=False)
        self._own = IngestLag(core.settings) if core.settings.log == "local:" else None
        self._asking = threading.Lock()
        self._asked = float("-inf")
        self._found: int | None = None

    def close(self) -> None:
        """Close the log."""
        if self._own is not None:
            self._own.close()

    def messages(self, gauge: float | None) -> int | None:
        """Return the messages that the lake does not have yet; None where nobody knows."""
        if self._own is None:
            return None if gauge is None else int(gauge)
        with self._asking:
            if time.monotonic() - self._asked >= _LAG_S:
                self._asked, self._found = time.monotonic(), self._look(self._own)
            return self._found

    def _look(self, own: IngestLag) -> int | None:
        try:
            return own.messages() if self._storage.has("decisions") else None
        except Exception as error:  # as of `serving.counters`: those of damaged files are of many kinds
            _log.warning("it is not known how far the lake is behind: %s", told(error, self._settings))
            return None
