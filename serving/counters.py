"""What a loop's decisions became: this process's own counts, and the lake's."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from pipelines.remedies import told
from pipelines.settings import LoopSettings, Settings
from pipelines.storage import Storage, StorageError
from serving.errors import UnavailableError

if TYPE_CHECKING:
    from pipelines.lake.tables import Tables

_log = logging.getLogger(__name__)
_LAKE_TTL_S = 5.0
_T = TypeVar("_T")


@dataclass(slots=True)
class Counts:
    """What this process did since it started, for one loop; `doubtful` outcomes by the field that is in doubt."""

    decided: int = 0
    repeated: int = 0
    outcomes: int = 0
    fallbacks: int = 0
    doubtful: Counter[str] = field(default_factory=Counter)


class LakeCounters:
    """The lake's counters of every loop, at most five seconds old.

    Args:
        settings: the installation.
        clock: seconds since 1970.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float]) -> None:
        self._settings, self._clock = settings, clock
        self._storage = Storage(settings.lake_url, persists=False)
        self._tables: Tables | None = None
        self._kept: dict[str, tuple[float, dict[str, Any] | None]] = {}

    def of(self, loop: LoopSettings) -> dict[str, Any] | None:
        """Return a loop's counters; blocking.

        None where no lake is there or answers, or has a moment to count at, or where its files are damaged.
        """
        now = time.monotonic()
        kept = self._kept.get(loop.name)
        if kept is not None and now - kept[0] < _LAKE_TTL_S:
            return kept[1]
        found: dict[str, Any] | None = None
        tables = self._opened()
        if tables is not None:
            from pipelines.interactions.counters import counters  # imports the lake: only readers of counters need it
            from pipelines.lake.moment import NoMomentError

            at = datetime.fromtimestamp(self._clock(), UTC)
            try:
                found = msgspec.to_builtins(counters(tables, loop, at))
            except NoMomentError:
                pass
            except Exception as error:  # engines and formats have errors of many kinds for files that are damaged
                _log.error("decisions of the lake are not counted: %s", told(error, self._settings))
        self._kept[loop.name] = (now, found)
        return found

    def read(self, reading: Callable[[Tables], list[_T]]) -> list[_T]:
        """Return what `reading` finds in the lake's tables, nothing where no lake is there or answers; blocking.

        Raises:
            UnavailableError: files of the lake are damaged.
        """
        tables = self._opened()
        if tables is None:
            return []
        try:
            return reading(tables)
        except Exception as error:  # as above
            _log.error("the lake is not read: %s", told(error, self._settings))
            raise UnavailableError("the lake cannot be read; the log of the service says why") from error

    def _opened(self) -> Tables | None:
        # Whoever reads a lake waits for minutes until object storage answers, and a page may not.
        try:
            if not self._storage.has("decisions"):
                return None
        except StorageError as error:
            _log.warning("the lake is not read: %s", error)
            return None
        from pipelines.lake.tables import Tables

        self._tables = self._tables or Tables(self._settings.lake_url)
        return self._tables
