"""The service in the caller's own process: the same core and spool, no HTTP.

with Client(load_settings(home="...")) as client:
    answer = client.decide("news", DecideRequest(context={"hour": 9}, actions=[Action("a"), Action("b")]))
    client.outcome("news", OutcomeRequest(answer.event_id, 1.0))
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, TypeVar

from pipelines.settings import Settings
from serving.errors import UnavailableError
from serving.start import open_core
from serving.wire import DecideRequest, DecideResponse, OutcomeRequest, activation

_T = TypeVar("_T")


class Client:
    """Decide and report without a server; safe to share between threads.

    Args:
        settings: the installation.
    """

    def __init__(self, settings: Settings) -> None:
        self.core = open_core(settings)
        self._loop = asyncio.new_event_loop()
        self._lock = threading.Lock()
        self._open = True
        self._thread = threading.Thread(target=self._loop.run_forever, name="client", daemon=True)
        self._thread.start()

    def decide(self, loop: str, request: DecideRequest) -> DecideResponse:
        """Return the decision; it is on disk. Raises what `Core.decide` raises."""
        return self._wait(self.core.decide(loop, request))

    def outcome(self, loop: str, *requests: OutcomeRequest) -> int:
        """Report outcomes and return their number; they are on disk. Errors as `Core.report`."""
        return self._wait(self.core.report(loop, requests))

    def activate(self, loop: str, event_id: str) -> None:
        """Activate a deferred decision."""
        self.outcome(loop, activation(event_id))

    def close(self) -> None:
        """Write what waits and close everything; does nothing when it was closed before."""
        with self._lock:
            was_open, self._open = self._open, False
        self.core.close()
        if was_open:
            asyncio.run_coroutine_threadsafe(_answered(), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _wait(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        with self._lock:  # what is taken before the end is answered before it
            if not self._open:
                coroutine.close()
                raise UnavailableError("the client is closed")
            future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        return future.result()


async def _answered() -> None:
    """Wait for everything that was asked before."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    if others:
        await asyncio.wait(others)
