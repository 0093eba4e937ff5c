"""Policies that fail: the log of the service has each way once, so that somebody sees why the baseline answers."""

from __future__ import annotations

import logging
import traceback
from pathlib import Path

from decision.errors import FieldError
from pipelines.logs import tell
from serving.deciding.decide import Ask

_log = logging.getLogger(__name__)
_MOST = 1_000


class Failing:
    """Tells of each way in which a version fails, once while it is in charge.

    The error's text stays out of the line, for it may hold what an application sent.
    """

    def __init__(self) -> None:
        self._told: set[tuple[str, str, str]] = set()

    def tell(self, ask: Ask, error: Exception) -> None:
        """Write a line, unless this version failed in this way before."""
        loop, version = ask.snapshot.loop.name, ask.snapshot.policy_version
        how = f"{type(error).__name__}: {error.field}" if isinstance(error, FieldError) else type(error).__name__
        last = traceback.extract_tb(error.__traceback__, limit=-1)
        place = f"{Path(last[0].filename).name}:{last[0].lineno}" if last else ""
        if (loop, version, how + place) in self._told:
            return
        if len(self._told) >= _MOST:
            self._told.clear()
        self._told.add((loop, version, how + place))
        fields = {"loop": loop, "event_id": ask.event_id, "version": version, "error": how, "at": place}
        tell(_log, "the policy failed, so the baseline answers", fields, logging.WARNING)
