"""A loop's reward window in microseconds, and the marks of the join that settles what is past it."""

from __future__ import annotations

from datetime import UTC, datetime

from decision.errors import FieldError
from pipelines.settings import LoopSettings

HISTORY = 1 << 20
"""Log partition, so to say, of a loop's decisions from before it was ours. They came settled, with their rewards."""
_LONGEST_US = 100 * 365 * 86_400 * 1_000_000


def window_us(loop: LoopSettings) -> int:
    """Return the length of the loop's reward window, in microseconds."""
    return max(1, int(min(loop.reward.window_s * 1e6, _LONGEST_US)))


def instant_us(now: datetime) -> int:
    """Return `now` in microseconds since 1970.

    Raises:
        FieldError: it has no UTC offset.
    """
    if now.tzinfo is None:
        raise FieldError("now", wanted="a time with its UTC offset", got=now.isoformat())
    since = now.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def join_mark(loop: str, partition: int) -> str:
    """Return the name of the join's position: every decision at a lower offset is settled."""
    return f"join/{loop}/{partition}"


def turn_mark(loop: str, partition: int) -> str:
    """Return the name of how often a join committed to a partition: it moves where the position may stand still."""
    return f"turn/{loop}/{partition}"
