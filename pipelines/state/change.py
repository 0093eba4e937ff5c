"""Changing one key of State by what stands there."""

from __future__ import annotations

from collections.abc import Callable

from pipelines.state.failures import StaleError, StateError
from pipelines.state.state import State

_ATTEMPTS = 100


def change(state: State, key: str, new: Callable[[bytes | None], bytes | None], *, by: str = "") -> bytes | None:
    """Put in the place of what stands under `key` what `new` makes of it, and return that.

    Args:
        state: State.
        key: the key.
        new: what stood there -> what is to stand there, None for nothing; called again where others were faster.
        by: who does it.

    Raises:
        StateError: State cannot be reached, or others kept changing the key.
    """
    for _ in range(_ATTEMPTS):
        entry = state.get(key)
        before = None if entry is None else entry.value
        after = new(before)
        if after == before:
            return after
        try:
            state.put({key: (None if entry is None else entry.version, after)}, by=by)
        except StaleError:
            continue
        return after
    raise StateError(f"{key}: others kept changing it")
