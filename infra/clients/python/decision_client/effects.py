"""What a call asks of the world, one step at a time, so that its rules are written once for threads and for tasks.

A call is a generator: it yields a `Send`, a `Pause` or a `Run` and is sent what came of it. `Client` and `AsyncClient`
are the two loops that do so, and differ in nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, Protocol, TypeVar

import msgspec


class Send(msgspec.Struct, frozen=True):
    """Ask the service once.

    Attributes:
        method: HTTP method.
        path: path below the service's address, percent-encoded.
        body: JSON, or None.
        timeout_s: longest wait for the answer, in seconds.
    """

    method: str
    path: str
    body: bytes | None
    timeout_s: float


class Pause(msgspec.Struct, frozen=True):
    """Wait so many seconds."""

    seconds: float


class Run(msgspec.Struct, frozen=True):
    """Do something that may wait for the disk; what it returns or raises is the call's."""

    work: Callable[[], Any]


class Reply(msgspec.Struct, frozen=True):
    """An answer.

    Attributes:
        status: HTTP status.
        body: what it says.
        retry_after_s: wait that it asks for, in seconds.
    """

    status: int
    body: bytes
    retry_after_s: float = 0.0


class NoReply(msgspec.Struct, frozen=True):
    """There was no answer.

    Attributes:
        reason: why.
        maybe_taken: whether the service may have taken the request.
    """

    reason: str
    maybe_taken: bool


T = TypeVar("T")
Call = Generator[Send | Pause | Run, Any, T]


class Engine(Protocol):
    """Who answers: a service, or the engine in this process."""

    def send(self, send: Send) -> Reply | NoReply:
        """Return the answer; raises nothing where there is none."""
        ...

    def close(self) -> None:
        """Close what is open."""
        ...


class AsyncEngine(Protocol):
    """Who answers a task."""

    async def send(self, send: Send) -> Reply | NoReply:
        """Return the answer; raises nothing where there is none."""
        ...

    async def close(self) -> None:
        """Close what is open."""
        ...
