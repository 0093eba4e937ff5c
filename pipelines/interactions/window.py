"""A loop's reward window and definition as the join takes them, and the marks of the join that settles what is past it.

A service takes them too: nothing here needs tables.
"""

from __future__ import annotations

from datetime import UTC, datetime

from decision.errors import FieldError
from decision.join import RewardRule
from decision.reward import LARGEST
from pipelines.settings import LoopSettings

HISTORY = 1 << 20
"""Log partition, so to say, of a loop's decisions from before it was ours. They came settled, with their rewards."""
_LONGEST_US = 100 * 365 * 86_400 * 1_000_000


def window_us(loop: LoopSettings) -> int:
    """Return the length of the loop's reward window, in microseconds."""
    return max(1, int(min(loop.reward.window_s * 1e6, _LONGEST_US)))


def rule_of(loop: LoopSettings, *, late: bool = False) -> RewardRule:
    """Return the loop's reward definition as the join takes it."""
    reward = loop.reward
    return RewardRule(
        outcome=reward.outcome,
        window_us=window_us(loop),
        default=reward.default,
        aggregation=reward.aggregation,
        minimum=-LARGEST if reward.minimum is None else reward.minimum,
        maximum=LARGEST if reward.maximum is None else reward.maximum,
        late=late,
        activates=reward.activates,
    )


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
