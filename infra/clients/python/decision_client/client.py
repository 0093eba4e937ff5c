"""The client, for threads and for tasks."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec

from decision_client.attempts import Attempts, path_of, read
from decision_client.decisions import Decisions
from decision_client.effects import AsyncEngine, Call, Engine, Run, Send
from decision_client.errors import RefusedError
from decision_client.outcomes import Outcomes, Reported
from decision_client.queue import Queue, Refusal
from decision_client.settings import Counts, Settings
from decision_client.wire import DecideRequest, DecideResponse, OutcomeRequest, activation

_T = TypeVar("_T")
_any = msgspec.json.Decoder()


class _Calls:
    """The calls of a client and what they share, whoever makes them."""

    def __init__(self, settings: Settings) -> None:
        self.attempts = Attempts(settings)
        self.queue = Queue(None if settings.queue in (None, "memory") else settings.queue, settings.queue_limit)
        self.decisions = Decisions(self.attempts, self.queue)
        self.outcomes = Outcomes(self.attempts, self.queue)

    def get(self, path: str) -> Call[Any]:
        self.attempts.check_open()
        settings = self.attempts.settings
        send = Send("GET", path, None, settings.timeout_s)
        return read(_any, (yield from self.attempts.answered(send, seconds=settings.deadline_s)))

    def flush(self, seconds: float) -> Call[int]:
        self.attempts.check_open()
        return (yield from self.outcomes.flush(seconds))


def _explanation(event_id: str, loop: str) -> str:
    return f"/v1/decisions/{quote(event_id, safe='')}" + (f"?loop={quote(loop, safe='')}" if loop else "")


class Client:
    """Asks for decisions and reports outcomes; safe to share between threads, not between processes.

    Args:
        service: address, for example ``http://127.0.0.1:8080``, or `InProcess`.
        key: API key, where the service has keys.
        settings: waits, fallback and queue.

    Attributes:
        settings: as given.

    Raises:
        ValueError: the address or a setting does not fit.
    """

    def __init__(self, service: str | Engine, *, key: str | None = None, settings: Settings | None = None) -> None:
        if isinstance(service, str):
            from decision_client.http import Http  # httpx takes most of the time that an import would

            service = Http(service, key)
        self.settings = settings or Settings()
        self._engine = service
        self._calls = _Calls(self.settings)

    def decide(self, loop: str, request: DecideRequest) -> DecideResponse:
        """Return the decision; `fallback` tells whether the service made it.

        Raises:
            RefusedError: the request does not fit, or its event id belongs to another.
            UnavailableError: there was no answer in time, and no fallback is wanted.
        """
        return self._do(self._calls.decisions.decide(loop, request))

    def decide_batch(self, loop: str, requests: Sequence[DecideRequest]) -> list[DecideResponse | RefusedError]:
        """Return at most 1,000 decisions in the order of the requests, with the error of each that was refused.

        Raises:
            RefusedError: there are none or too many, or the batch as a whole does not fit.
            UnavailableError: some had no answer in time, and no fallback is wanted.
        """
        return self._do(self._calls.decisions.decide_batch(loop, requests))

    def outcome(self, loop: str, *outcomes: OutcomeRequest) -> Reported:
        """Report at most 1,000 outcomes, all or none; those that the service cannot take now are queued.

        Raises:
            RefusedError: one does not fit; none was taken.
            UnavailableError: there was no answer in time, and there is no queue.
            QueueFullError: the same, and the queue has no room.
        """
        return self._do(self._calls.outcomes.report(loop, outcomes))

    def activate(self, loop: str, event_id: str, *, slot: str = "", action_id: str | None = None) -> Reported:
        """Activate a deferred decision, if it drew the action named; queued and refused as an outcome is."""
        return self.outcome(loop, activation(event_id, slot, action_id))

    def explain(self, event_id: str, *, loop: str = "") -> dict[str, Any]:
        """Return how a decision came about, its draw repeated.

        Raises:
            RefusedError: there is no such decision (`UnknownError`), or it was erased (`ErasedError`).
            UnavailableError: there was no answer in time.
        """
        return self._do(self._calls.get(_explanation(event_id, loop)))

    def loops(self) -> list[str]:
        """Return the names of the loops that the key may see. Raises as `explain`."""
        return self._do(self._calls.get("/v1/loops"))["loops"]

    def describe(self, loop: str) -> dict[str, Any]:
        """Return a loop's settings, versions, guard and counters. Raises as `explain`."""
        return self._do(self._calls.get(path_of(loop, "")))

    def flush(self, seconds: float = 10.0) -> int:
        """Send what is queued, trying for so many seconds; return how many outcomes still wait."""
        return self._do(self._calls.flush(seconds))

    def waiting(self) -> int:
        """Return how many outcomes are in the queue."""
        return self._calls.queue.waiting()

    def refusals(self) -> list[Refusal]:
        """Return the outcomes from the queue that the service refused; they count towards the queue's limit."""
        return self._calls.queue.refusals()

    def forget_refusals(self) -> int:
        """Forget the outcomes from the queue that the service refused, and return their number."""
        return self._calls.queue.forget_refusals()

    def counts(self) -> Counts:
        """Return what the client did since it was opened."""
        return msgspec.structs.replace(self._calls.attempts.counts)

    def close(self) -> None:
        """Send what is queued once more and close everything; does nothing when it was closed before."""
        if self._calls.attempts.close():
            self._do(self._calls.outcomes.end())
            self._engine.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _do(self, call: Call[_T]) -> _T:
        came: Any = None
        try:
            while True:
                effect = call.send(came)
                if isinstance(effect, Send):
                    came = self._engine.send(effect)
                elif isinstance(effect, Run):
                    came = effect.work()
                else:
                    came = time.sleep(effect.seconds)
        except StopIteration as done:
            return done.value
        finally:
            call.close()


class AsyncClient:
    """As `Client`, for the tasks of one event loop.

    A task that is cancelled while it reports may have reported; with the same idempotency key it may do so again.
    """

    def __init__(self, service: str | AsyncEngine, *, key: str | None = None, settings: Settings | None = None) -> None:
        if isinstance(service, str):
            from decision_client.async_http import AsyncHttp  # as in `Client`

            service = AsyncHttp(service, key)
        self.settings = settings or Settings()
        self._engine = service
        self._calls = _Calls(self.settings)

    async def decide(self, loop: str, request: DecideRequest) -> DecideResponse:
        """As `Client.decide`."""
        return await self._do(self._calls.decisions.decide(loop, request))

    async def decide_batch(self, loop: str, requests: Sequence[DecideRequest]) -> list[DecideResponse | RefusedError]:
        """As `Client.decide_batch`."""
        return await self._do(self._calls.decisions.decide_batch(loop, requests))

    async def outcome(self, loop: str, *outcomes: OutcomeRequest) -> Reported:
        """As `Client.outcome`."""
        return await self._do(self._calls.outcomes.report(loop, outcomes))

    async def activate(self, loop: str, event_id: str, *, slot: str = "", action_id: str | None = None) -> Reported:
        """As `Client.activate`."""
        return await self.outcome(loop, activation(event_id, slot, action_id))

    async def explain(self, event_id: str, *, loop: str = "") -> dict[str, Any]:
        """As `Client.explain`."""
        return await self._do(self._calls.get(_explanation(event_id, loop)))

    async def loops(self) -> list[str]:
        """As `Client.loops`."""
        return (await self._do(self._calls.get("/v1/loops")))["loops"]

    async def describe(self, loop: str) -> dict[str, Any]:
        """As `Client.describe`."""
        return await self._do(self._calls.get(path_of(loop, "")))

    async def flush(self, seconds: float = 10.0) -> int:
        """As `Client.flush`."""
        return await self._do(self._calls.flush(seconds))

    def waiting(self) -> int:
        """As `Client.waiting`."""
        return self._calls.queue.waiting()

    def refusals(self) -> list[Refusal]:
        """As `Client.refusals`."""
        return self._calls.queue.refusals()

    def forget_refusals(self) -> int:
        """As `Client.forget_refusals`."""
        return self._calls.queue.forget_refusals()

    def counts(self) -> Counts:
        """As `Client.counts`."""
        return msgspec.structs.replace(self._calls.attempts.counts)

    async def close(self) -> None:
        """As `Client.close`."""
        if self._calls.attempts.close():
            await self._do(self._calls.outcomes.end())
            await self._engine.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _do(self, call: Call[_T]) -> _T:
        import asyncio  # who gets here runs it already; at the top it would cost every other program its import

        came: Any = None
        try:
            while True:
                effect = call.send(came)
                if isinstance(effect, Send):
                    came = await self._engine.send(effect)
                elif isinstance(effect, Run):
                    came = await asyncio.to_thread(effect.work)
                else:
                    came = await asyncio.sleep(effect.seconds)
        except StopIteration as done:
            return done.value
        finally:
            call.close()
