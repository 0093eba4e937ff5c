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
        self.core.close()
        if not self._loop.is_closed():
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
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()
