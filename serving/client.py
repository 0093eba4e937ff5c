"""The service in the caller's own process: the same core and spool, no HTTP.

Threads may share a client:

    with Client(load_settings(home="...")) as client:
        answer = client.decide("news", DecideRequest(context={"hour": 9}, actions=[Action("a"), Action("b")]))
        client.outcome("news", OutcomeRequest(answer.event_id, 1.0))
"""

from __future__ import annotations

from types import TracebackType

from pipelines.settings import Settings
from serving.start import open_core
from serving.wire import DecideRequest, DecideResponse, OutcomeRequest, activation


class Client:
    """Decide and report without a server; safe to share between threads.

    Args:
        settings: the installation.
    """

    def __init__(self, settings: Settings) -> None:
        self.core = open_core(settings)

    def decide(self, loop: str, request: DecideRequest) -> DecideResponse:
        """Return the decision; it is on disk. Raises what `Core.decide` raises."""
        return self.core.decide_here(loop, request)

    def outcome(self, loop: str, *requests: OutcomeRequest) -> int:
        """Report outcomes and return their number; they are on disk. Errors as `Core.report`."""
        return self.core.report_here(loop, requests)

    def activate(self, loop: str, event_id: str, *, action_id: str | None = None) -> None:
        """Activate a deferred decision, if it drew the action named."""
        self.outcome(loop, activation(event_id, action_id=action_id))

    def close(self) -> None:
        """Write what waits and close everything; does nothing when it was closed before."""
        self.core.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
