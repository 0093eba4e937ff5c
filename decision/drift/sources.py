"""Where a change of rewards comes from: from some decisions more than from the others, or from another mix of them.

The mean over all decisions is the sum of shares times means of a feature's cells. So its change is one of means, under
the shares of now, plus one of shares, under the means of before (Kitagawa 1955).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import Literal

import msgspec
from scipy.special import ndtri

from decision.drift.profile import Cell, Counted, Profile
from decision.drift.rewards import LEAST_BEFORE, LEAST_NOW, compared

ERROR = 0.01
"""Chance that decisions are named where all changed alike."""
LARGEST = 0.95
"""Cells of a larger share are all decisions."""
MIX = 0.5
"""Share of the change from which on another mix is named."""
_SHOWN = 3


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """What a change comes from.

    Attributes:
        how: ``rate``: these earn otherwise than before, the others do so less; ``mix``: they are more or fewer.
        of: the decisions: ``action ID``, ``FEATURE=VALUE`` and the like; of a mix the feature.
        part: share of the change that they explain; may pass 1 where others went the other way.
        mean: their mean reward; of a mix that of all decisions, as it would be with the shares alone changed.
        mean_before: the same in the training data.
        share: theirs of the decisions; 1 for a mix.
    """

    how: Literal["rate", "mix"]
    of: str
    part: float
    mean: float
    mean_before: float
    share: float


def sources(profile: Profile, counted: Counted) -> list[Source]:
    """Return what the change of the rewards of all decisions comes from, most telling first; [] for all alike."""
    whole, before = counted.rewards, profile.rewards
    if whole is None or before is None or min(whole.effective, before.effective) < LEAST_NOW:
        return []
    change, error, _ = compared(whole, before)
    if change == 0.0 or error == 0.0:
        return []
    cells = [
        (feature.segment(at), now, former)
        for feature, both, mine in zip(profile.features, profile.cells, counted.cells, strict=True)
        for at, (now, former) in enumerate(zip(mine, both, strict=True))
    ]
    acts = zip(profile.drawn.values, counted.drawn_cells[2:], profile.drawn_cells[2:], strict=True)
    # Blindly drawn, an action has the share that it had in training.
    cells += [
        (f"action {value}", msgspec.structs.replace(now, share=former.share), former) for value, now, former in acts
    ]
    limit = -float(ndtri(ERROR / max(1, len(cells))))
    rates = [
        (told, source)
        for of, now, former in cells
        if (found := _rate(of, now, former, change, error)) and (told := found[0]) >= limit and (source := found[1])
    ]
    rates.sort(key=lambda entry: -entry[0])
    mixes = [
        mix
        for feature, both, mine in zip(profile.features, profile.cells, counted.cells, strict=True)
        if (mix := _mix(feature.name, mine, both, change, before.mean)) is not None
    ]
    mixes.sort(key=lambda source: -source.part)
    return [*mixes[:1], *(source for _, source in rates)][:_SHOWN]


def _rate(of: str, now: Cell, before: Cell, change: float, error: float) -> tuple[float, Source] | None:
    a, b = now.rewards, before.rewards
    if a is None or b is None or a.effective < LEAST_NOW or b.effective < LEAST_BEFORE or now.share > LARGEST:
        return None
    own, spread, _ = compared(a, b)
    part = now.share * own / change
    rest = change * (1.0 - part) / (1.0 - now.share)
    noise = sqrt(spread**2 + error**2 / (1.0 - now.share))
    excess = (own - rest) / noise if change > 0 else (rest - own) / noise
    return excess, Source(how="rate", of=of, part=part, mean=a.mean, mean_before=b.mean, share=now.share)


def _mix(name: str, now: Sequence[Cell], before: Sequence[Cell], change: float, mean: float) -> Source | None:
    if abs(sum(cell.share for cell in now) - 1.0) > 1e-6:  # a set of categories has no shares that add up
        return None
    moved = sum((a.share - b.share) * (b.rewards.mean - mean) for a, b in zip(now, before, strict=True) if b.rewards)
    if moved / change < MIX:
        return None
    return Source(how="mix", of=name, part=moved / change, mean=mean + moved, mean_before=mean, share=1.0)
