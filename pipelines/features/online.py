"""Features on the request path: what Feast holds for a subject now, in microseconds, and never an exception.

Values come through Feast's own reader of its online store. A bounded cache in front of it is emptied whenever another
connection committed to the store (SQLite's ``data_version``, looked at every five milliseconds), so a decision that
comes later than that after a push sees the push.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from typing import Any

from pipelines.features.store import SUBJECT, Store
from pipelines.settings import LoopSettings, Settings

_log = logging.getLogger("decision.features")
MAX_CACHED = 50_000
LOOK_S = 0.005


class Features:
    """Looks features up by subject.

    Args:
        settings: the installation.
        loop: the loop.

    Attributes:
        failures: look-ups that were answered with {} because the store failed.
    """

    def __init__(self, settings: Settings, loop: LoopSettings) -> None:
        self.store = Store(settings, loop)
        self._settings = settings
        self._next_look = 0.0
        self.failures = 0
        self._cache: dict[str, dict[str, Any]] = {}
        self._seen = -1
        self._views: list[Any] | None = None
        self._watch: sqlite3.Connection | None = None
        self._mtime = 0.0

    def open(self) -> None:
        """Import and open Feast now, so that no request waits for it."""
        feast = self.store.feast
        names = {name.split(":")[0] for name in self.store.names()}
        self._views = [feast.get_feature_view(name) for name in sorted(names)]
        self._mtime = self._uploaded()
        path = self.store.folder / "online.db"
        self._watch = sqlite3.connect(path, check_same_thread=False, isolation_level=None)

    def online(self, subject_id: str) -> dict[str, Any]:
        """Return the subject's features as they stand now, {} when there are none or the store fails."""
        try:
            if self._views is None or self._watch is None:
                self.open()
            assert self._watch is not None  # noqa: S101 - opened just now
            now = time.monotonic()
            if now >= self._next_look:
                self._next_look = now + LOOK_S
                self._look()
            found = self._cache.get(subject_id)
            if found is None:
                found = self._read(subject_id)
                if len(self._cache) >= MAX_CACHED:
                    self._cache.clear()
                self._cache[subject_id] = found
            return found
        except Exception as error:
            self.failures += 1
            if self.failures == 1:
                _log.warning("features of loop %s: %s", self.store.loop.name, error)
            return {}

    def _look(self) -> None:
        """Empty the cache if the store changed since the last look."""
        assert self._watch is not None  # noqa: S101 - opened by the caller
        version = self._watch.execute("PRAGMA data_version").fetchone()[0]
        if version != self._seen:
            if self._uploaded() != self._mtime:
                self.store = Store(self._settings, self.store.loop)
                self.open()
            self._cache.clear()
            self._seen = version

    def _read(self, subject_id: str) -> dict[str, Any]:
        from feast.protos.feast.types.EntityKey_pb2 import EntityKey
        from feast.protos.feast.types.Value_pb2 import Value

        feast = self.store.feast
        key = EntityKey(join_keys=[SUBJECT], entity_values=[Value(string_val=subject_id)])
        provider = feast._get_provider()
        out: dict[str, Any] = {}
        for view in self._views or ():
            ((_, values),) = provider.online_read(feast.config, view, [key])
            for name, value in sorted((values or {}).items()):
                kind = value.WhichOneof("val")
                if kind is not None and kind != "null_val":
                    out[name] = getattr(value, kind)
        return out

    def _uploaded(self) -> float:
        return self.store.subjects.stat().st_mtime if self.store.subjects.exists() else 0.0
