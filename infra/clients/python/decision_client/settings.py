"""How long a call may take and what becomes of it when the service does not answer."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import msgspec

if TYPE_CHECKING:
    from pathlib import Path


class Loss(msgspec.Struct, frozen=True):
    """Something that the loop will not learn from.

    Attributes:
        kind: ``decision``, answered by the fallback; ``outcome``, refused or given up.
        loop: its loop.
        event_id: its decision.
        reason: why, as a sentence.
    """

    kind: Literal["decision", "outcome"]
    loop: str
    event_id: str
    reason: str


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of a client.

    Attributes:
        timeout_s: longest wait for one answer, in seconds.
        deadline_s: longest a call may take, with all its attempts and the waits between them, in seconds; a batch may
            take `batch_timeout_s` more.
        batch_timeout_s: longest wait for one answer to a list, in seconds.
        first_wait_s: wait before the second attempt, in seconds; each further one is twice as long.
        longest_wait_s: longest wait between two attempts, in seconds.
        rest_s: after a call that had no answer, for so many seconds the loop's decisions are the fallback's and its
            outcomes are queued without an attempt, so that an absent service does not cost every call its deadline.
        fallback: ``first`` answers with the first action where the service does not; ``none`` raises.
        queue: SQLite file of outcomes that wait for the service; ``memory`` loses them with the process; None keeps
            none, and reporting raises.
        queue_limit: most outcomes that wait.
        on_loss: told of every loss, from whatever thread met it; it must not raise.
    """

    timeout_s: float = 1.0
    deadline_s: float = 2.0
    batch_timeout_s: float = 10.0
    first_wait_s: float = 0.05
    longest_wait_s: float = 1.0
    rest_s: float = 1.0
    fallback: Literal["first", "none"] = "first"
    queue: str | Path | Literal["memory"] | None = "memory"
    queue_limit: int = 100_000
    on_loss: Callable[[Loss], None] | None = None

    def __post_init__(self) -> None:
        """Refuse what does not fit.

        Raises:
            ValueError: naming the setting.
        """
        for name in ("timeout_s", "deadline_s", "batch_timeout_s", "first_wait_s", "longest_wait_s", "rest_s"):
            value, zero = getattr(self, name), name in ("first_wait_s", "rest_s")
            if not (math.isfinite(value) and (value > 0 or (zero and value == 0))):
                wanted = "0 or more seconds" if zero else "more than 0 seconds"
                raise ValueError(f"{name}: must be {wanted}, is {value}")
        if self.fallback not in ("first", "none"):
            raise ValueError(f"fallback: must be 'first' or 'none', is {self.fallback!r}")
        if self.queue_limit < 1:
            raise ValueError(f"queue_limit: must be at least 1, is {self.queue_limit}")


class Counts(msgspec.Struct):
    """What a client did since it was opened.

    Attributes:
        decided: decisions of the service.
        fallbacks: decisions that the fallback took.
        maybe_logged: of these, those of which the service may hold a decision that nobody saw.
        retried: attempts after the first.
        accepted: outcomes that the service took, from the queue too.
        queued: outcomes that were put into the queue.
        refused: outcomes from the queue that the service refused.
        lost: outcomes that were still in memory when the client was closed.
    """

    decided: int = 0
    fallbacks: int = 0
    maybe_logged: int = 0
    retried: int = 0
    accepted: int = 0
    queued: int = 0
    refused: int = 0
    lost: int = 0
