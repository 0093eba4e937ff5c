"""What stands in State, as whoever serves requests knows it: one query for all loops per look, and what changed."""

from __future__ import annotations

import time
from collections.abc import Callable

from pipelines.state.state import Entry, State

_FEW = 8


class Watch:
    """What stands under a prefix, as of the last look; looks are one thread's, reads any thread's.

    Args:
        state: State.
        prefix: how the keys begin.
        clock: monotonic seconds.
    """

    def __init__(self, state: State, prefix: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._state, self._prefix, self._clock = state, prefix, clock
        self._held: dict[str, Entry] = {}
        self._looked = clock()

    def look(self) -> None:
        """Ask what changed since the last look, and fetch it.

        Raises:
            StateError: State does not answer; what was seen last is still held.
        """
        asked = self._clock()
        versions = self._state.versions(self._prefix)
        held = {key: entry for key, entry in self._held.items() if versions.get(key) == entry.version}
        changed = versions.keys() - held.keys()
        if len(changed) > _FEW:
            held = self._state.entries(self._prefix)
        else:
            for key in changed:
                entry = self._state.get(key)
                held |= {} if entry is None else {key: entry}
        self._held, self._looked = held, asked

    def get(self, key: str) -> Entry | None:
        """Return what stood under `key` at the last look."""
        return self._held.get(key)

    def entries(self) -> dict[str, Entry]:
        """Return what stood under all keys at the last look, by key, in their order."""
        return dict(sorted(self._held.items()))

    def keys(self) -> list[str]:
        """Return the keys that had a value at the last look, sorted."""
        return sorted(self._held)

    @property
    def age_s(self) -> float:
        """Seconds since the last look that State answered was begun."""
        return self._clock() - self._looked
