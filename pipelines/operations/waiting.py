"""Waiting for other processes: as long as they get on, however slow the machine is."""

from __future__ import annotations

import time
from collections.abc import Callable

STILL_S = 120.0
"""How long nothing may move before a wait is given up, in seconds."""
_POLL_S = 0.05


class StandstillError(RuntimeError):
    """Nothing moved for so long that nothing will."""


def wait_until(
    done: Callable[[], bool],
    what: str,
    *,
    progress: Callable[[], object] = lambda: None,
    still_s: float = STILL_S,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Wait until `done`, and give up only where nothing has moved for long.

    Args:
        done: whether the wait is over.
        what: what is waited for, for the error.
        progress: what changes while things get on, a counter for example.
        still_s: how long it may stand still, in seconds.
        clock: monotonic seconds.
        sleep: pauses for so many seconds.

    Raises:
        StandstillError: `progress` has not changed for `still_s`.
    """
    seen, since = progress(), clock()
    while not done():
        now = progress()
        if now != seen:
            seen, since = now, clock()
        elif clock() - since > still_s:
            raise StandstillError(f"{what}: nothing moved for {still_s:.0f} s; the last seen is {now!r}")
        sleep(_POLL_S)
