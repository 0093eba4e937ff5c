"""The service's engine in this process, behind the same client: no HTTP, the same answers, errors and books.

It needs the distribution `decision-service`, which the client does not depend on.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote

import msgspec

from decision_client.effects import NoReply, Reply, Send

if TYPE_CHECKING:
    from serving.client import Client as Service

_THREADS = 32
_encode = msgspec.json.encode


class InProcess:
    """An installation, opened in this process; safe to share between threads.

    Args:
        settings: settings of the installation by name, for example ``home="/var/lib/decision"``; those left out come
            from the environment, as the service's own do.

    Raises:
        ImportError: `decision-service` is not installed.
        decision.errors.FieldError: a setting does not fit.
    """

    def __init__(self, **settings: Any) -> None:
        from concurrent.futures import ThreadPoolExecutor

        from pipelines.settings import load_settings
        from serving import wire
        from serving.client import Client

        self._service: Service = Client(load_settings(**settings))
        self._wire = wire
        self._question = msgspec.json.Decoder(wire.DecideRequest)
        self._reports = msgspec.json.Decoder(wire.OutcomeRequest | list[wire.OutcomeRequest])
        self._pool = ThreadPoolExecutor(_THREADS, "decision")

    def send(self, send: Send) -> Reply | NoReply:
        """Return the answer that the service would give over HTTP."""
        try:
            return self._answered(send)
        except Exception as error:
            return self._said(error)

    def close(self) -> None:
        """Write what waits and close the installation."""
        self._pool.shutdown()
        self._service.close()

    def _answered(self, send: Send) -> Reply:
        core, body = self._service.core, send.body or b""
        path, _, query = send.path.partition("?")
        match [unquote(part) for part in path.split("/")[2:]]:
            case ["loops"]:
                return Reply(200, _encode(self._wire.LoopNames(sorted(core.loops.names()))))
            case ["loops", loop]:
                return Reply(200, _encode(core.describe(loop)))
            case ["loops", loop, "decide"]:
                return Reply(200, self._decided(loop, body))
            case ["loops", loop, "decide", "batch"]:
                core.snapshot(loop)
                bodies = msgspec.json.decode(body, type=dict[str, list[msgspec.Raw]])["decisions"]
                each = list(self._pool.map(partial(self._one_of_many, loop), bodies))
                return Reply(200, b'{"decisions":[' + b",".join(each) + b"]}")
            case ["loops", loop, "outcomes"]:
                core.snapshot(loop)
                reports = self._wire.decode(self._reports, body)
                taken = self._service.outcome(loop, *(reports if isinstance(reports, list) else [reports]))
                return Reply(202, _encode(self._wire.Accepted(taken)))
            case ["decisions", event_id]:
                return Reply(200, _encode(core.explain(event_id, parse_qs(query).get("loop", [""])[0])))
        raise LookupError(send.path)

    def _decided(self, loop: str, body: bytes | msgspec.Raw) -> bytes:
        return _encode(self._service.decide(loop, self._wire.decode(self._question, bytes(body))))

    def _one_of_many(self, loop: str, body: msgspec.Raw) -> bytes:
        try:
            return self._decided(loop, body)
        except Exception as error:
            return self._said(error).body

    def _said(self, error: Exception) -> Reply:
        """Return an error as the problem document that HTTP has for it; one that has none is raised."""
        from serving.problems import problem_of

        said = problem_of(error)
        if said is None:
            raise error
        return Reply(said.status, said.body())


class AsyncInProcess:
    """As `InProcess`, for tasks: what waits for the disk waits in a thread."""

    def __init__(self, **settings: Any) -> None:
        self._engine = InProcess(**settings)

    async def send(self, send: Send) -> Reply | NoReply:
        """Return the answer that the service would give over HTTP."""
        return await _in_thread(partial(self._engine.send, send))

    async def close(self) -> None:
        """Write what waits and close the installation."""
        await _in_thread(self._engine.close)


async def _in_thread(work: Callable[[], Any]) -> Any:
    import asyncio  # as in `client`

    return await asyncio.to_thread(work)
