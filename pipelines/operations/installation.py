"""The parts of one installation, opened when they are first asked for: log, lake, registry, loops."""

from __future__ import annotations

import logging
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from pipelines.files import make_home
from pipelines.progress import Progress, silent
from pipelines.settings import LoopSettings, Settings, list_loops, load_loop, load_loops, load_settings

if TYPE_CHECKING:
    from pipelines.features.store import Features
    from pipelines.lake.lake import Lake
    from pipelines.lake.tables import Tables
    from pipelines.log.protocol import EventLog
    from pipelines.registry.registry import Registry

_log = logging.getLogger(__name__)


class Installation:
    """An installation's parts; a context manager that closes what was opened.

    Args:
        settings: the installation.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._log: EventLog | None = None
        self._features: dict[str, Features] = {}
        self._errors: dict[str, str] = {}

    @classmethod
    def at(cls, home: Path | None) -> Self:
        """Return the installation in `home`, or where the environment says; see `load_settings` for errors."""
        return cls(load_settings(home=None if home is None else str(home)))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for features in self._features.values():
            features.close()
        self._features = {}
        if self._log is not None:
            self._log.close()
            self._log = None

    @property
    def loops(self) -> list[str]:
        """Names of the loops, also of those whose settings cannot be read."""
        return list_loops(self.settings)

    def push_features(self, progress: Progress = silent) -> int:
        """Bring the streaming features of every loop that has some up to the lake; return the subjects that changed."""
        changed = 0
        for name, loop in self.readable().items():
            if loop.features.enabled and loop.features.stream:
                from pipelines.features.push import push_new  # imports Feast: only loops that use it pay the seconds
                from pipelines.features.store import Features

                if name not in self._features:
                    self._features[name] = Features(self.settings, loop)
                changed += push_new(self.lake, loop, self._features[name], progress).subjects
        return changed

    def readable(self) -> dict[str, LoopSettings]:
        """Return the loops whose settings can be read; what is wrong with the others is logged, each error once."""
        loops, errors = load_loops(self.settings)
        for name, error in errors.items():
            if self._errors.get(name) != error:
                _log.warning("%s; the other loops go on", error)
        self._errors = errors
        return loops

    def loop(self, name: str) -> LoopSettings:
        """Return a loop's settings; see `load_loop` for errors."""
        return load_loop(self.settings, name)

    @property
    def log(self) -> EventLog:
        """The event log that ingestion reads, its topics created."""
        if self._log is None:
            from pipelines.log.open import open_log
            from pipelines.log.protocol import TOPICS

            make_home(self.settings.root)
            self._log = open_log(self.settings.log_url)
            for topic in TOPICS:
                self._log.create(topic, self.settings.partitions)
        return self._log

    @cached_property
    def tables(self) -> Tables:
        """The lake's tables, for who counts in them and reads no rows."""
        from pipelines.lake.tables import Tables

        return Tables(self.settings.lake_url)

    @cached_property
    def lake(self) -> Lake:
        """The tables."""
        from pipelines.lake.lake import Lake

        return Lake(self.settings.lake_url)

    @cached_property
    def registry(self) -> Registry:
        """The versions."""
        from pipelines.registry.registry import Registry

        return Registry(self.settings)
