"""A lease that is held for as long as some work takes, however long that is."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from pipelines.state.state import Lease, State

LEASE_S = 20.0
"""Who was lost leaves what it held to another one after so many seconds."""


@contextmanager
def holding(state: State, name: str, ttl_s: float = LEASE_S) -> Iterator[Lease | None]:
    """Hold the lease `name`; a thread renews it, so that only who is not heard of any more loses it.

    Args:
        state: where the lease is.
        name: what it is called.
        ttl_s: how long it outlives its holder, in seconds, and how long another holder is waited for.

    Yields:
        The lease; None where another one kept it all the time.
    """
    ended = threading.Event()
    lease = state.acquire(name, ttl_s)
    for _ in range(round(ttl_s)):  # a machine that was lost may hold it for so long; one that runs keeps it
        if lease is not None:
            break
        ended.wait(1.0)
        lease = state.acquire(name, ttl_s)
    if lease is None:
        yield None
        return
    held = lease

    def renew() -> None:
        while not ended.wait(ttl_s / 4):
            if not state.renew(held, ttl_s):
                return  # what is fenced by it is refused from now on

    thread = threading.Thread(target=renew, name=f"lease {name}", daemon=True)
    thread.start()
    try:
        yield held
    finally:
        ended.set()
        thread.join()
        state.release(held)
