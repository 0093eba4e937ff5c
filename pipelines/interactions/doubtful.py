"""Outcomes that say less than their sender meant: an unknown name, a value outside of the reward's range.

What is certain to be a mistake is refused. What may be meant is taken, since records stay raw and a definition can
change, and is counted by the field that is in doubt: by the service at once, then over the lake and what waits on the
log.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Literal, get_args

from decision.errors import FieldError
from decision.join import ACTIVATION
from decision.records import decode_outcome
from pipelines.log.protocol import OUTCOMES, EventLog
from pipelines.settings import RewardSettings

if TYPE_CHECKING:
    from pipelines.lake.tables import Tables
    from pipelines.settings import LoopSettings

Doubt = Literal["name", "value", "event_id"]
DOUBTS: tuple[Doubt, ...] = get_args(Doubt)
MOST_WAITING = 20_000
"""Outcomes of each partition that are looked at on the log, from where the lake ends."""
_AT_ONCE = 2_000


def doubt_of(name: str, value: float, reward: RewardSettings) -> Doubt | None:
    """Return which field of an outcome is in doubt under a reward's definition, None for none.

    Raises:
        FieldError: the field does not fit for certain: a name outside of a list that the loop gives, or a value outside
            of the range where each value is one that the reward may take (any aggregation but ``sum``).
    """
    if name == ACTIVATION or name in reward.beside:
        return None
    if name != reward.outcome:
        if reward.others:
            raise FieldError.choice("name", [reward.outcome, ACTIVATION, *reward.beside], name)
        return "name"
    low, high = range_of(reward)
    if low <= value <= high:
        return None
    if reward.aggregation != "sum":
        raise FieldError("value", wanted=f"between {low:g} and {high:g}, the loop's rewards", got=value)
    return "value"


def range_of(reward: RewardSettings) -> tuple[float, float]:
    """Return the smallest and the largest reward; infinite where the definition has none."""
    low, high = reward.minimum, reward.maximum
    return -math.inf if low is None else low, math.inf if high is None else high


def waiting_doubts(log: EventLog, tables: Tables, loop: LoopSettings) -> Counter[str]:
    """Return the doubts about outcomes of `loop` that are on the log and not in the lake yet, by field.

    Args:
        log: the event log.
        tables: the lake's.
        loop: the loop; its reward definition, as it is now, says what is in doubt.

    Raises:
        LogError: the log does not answer.
    """
    from pipelines.lake.tables import mark_of  # imports the lake: the service goes without

    found, table = Counter[str](), tables.table("outcomes")
    for partition in range(log.partitions(OUTCOMES)):
        low, high = log.watermarks(OUTCOMES, partition)
        at = max(low, mark_of(table, f"{OUTCOMES}/{partition}") or 0)
        end = min(high, at + MOST_WAITING)
        while at < end:
            stretch = log.read_stretch(OUTCOMES, partition, at, max_messages=min(_AT_ONCE, end - at))
            if not len(stretch):
                break
            for value in stretch.values:
                _count(value, loop, found)
            at = stretch.offsets[-1] + 1
    return found


def _count(value: bytes, loop: LoopSettings, found: Counter[str]) -> None:
    try:
        outcome = decode_outcome(value)
        doubt = doubt_of(outcome.name, outcome.value, loop.reward) if outcome.loop == loop.name else None
    except FieldError as error:  # a dead letter, or taken under an earlier definition
        doubt = error.field if error.field in ("name", "value") else None
    if doubt is not None:
        found[doubt] += 1
