"""Estimates of every segment with intervals that hold together: with probability `level` none of them misses.

Each of S segments gets a level of ``1 - (1 - level) / S`` (Bonferroni 1936), which needs no independence:
segments share the reward model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from decision.errors import FieldError
from decision.ope.estimate import Estimate
from decision.ope.sums.means import MeanSums

Key = TypeVar("Key")


def simultaneous(
    sums: Mapping[Key, MeanSums], *, level: float = 0.95, chosen: int | None = None
) -> dict[Key, Estimate]:
    """Return the estimate of every segment, at a level at which all intervals hold together.

    Args:
        sums: of each segment.
        level: of all intervals together.
        chosen: S, where segments were left out for what their rows are like: those that are left out count, too. None
            where none was.

    Raises:
        FieldError: the level is not in (0, 1), or fewer were chosen than there are.
        SupportError: a segment has no rows.
    """
    if not 0 < level < 1:
        raise FieldError("level", wanted="a number in (0, 1)", got=level)
    if chosen is not None and chosen < len(sums):
        raise FieldError("chosen", wanted=f"{len(sums)} segments or more", got=chosen)
    each = 1.0 - (1.0 - level) / max(chosen or len(sums), 1)
    return {name: part.estimate(each) for name, part in sums.items()}
