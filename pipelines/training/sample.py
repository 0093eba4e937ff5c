"""Which rows of a window are held out and which are learned from: a pass over its slices, with sums that add up.

A hash decides, so that every look at a row finds the same, whoever looks, and in any order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

from decision.batch import Floats, Ints
from decision.options import SESSION
from decision.reward import Rewards
from decision.split import uniforms_of
from pipelines.training.settled import ORDER, Bools, Settled, is_rewarded, times_of
from pipelines.training.survey import DAY, Slice

pc: Any = pyarrow.compute  # its functions are made when it is imported; type checkers do not see them

NARROW = (*ORDER, "reward", "reward_version", "partition", "offset")
"""Columns that every look at rows needs."""
Bits = tuple[int, NDArray[np.uint8]]
"""How many rows, and a bit for each."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Which rows of a window are held out and which are picked, as it is sent to whoever looks through a slice.

    Attributes:
        settled: the rows.
        slices: parts of them by time.
        first_day: days from 1970 to the first one, UTC.
        rates: [d, 2] probability that a row of each day is picked unless it is held out, as `Survey.days`.
        ends: [g] int64 microseconds, ascending: newest decision of each earlier training.
    """

    settled: Settled
    slices: list[Slice]
    first_day: int
    rates: Floats
    ends: Ints

    def rate(self, table: pa.Table) -> Floats:
        """Return [n] the probability that each row is learned from, unless it is held out."""
        days = times_of(table) // DAY - self.first_day
        return self.rates[days, is_rewarded(table, self.settled.loop).astype(np.int64)]

    def split(self, table: pa.Table) -> tuple[Bools, Bools, Floats]:
        """Return [n] which rows are held out, which are picked, and a uniform number of each of the others."""
        loop = self.settled.loop
        share = loop.training.holdout
        keys = table["event_id"]
        if loop.policy.oracle == SESSION:  # what is learned of a user's decisions is learned of the user
            keys = pc.coalesce(table["subject_id"], keys)
        uniform = uniforms_of(keys.to_pylist(), holdout_salt(loop.name))
        held = uniform < share
        rest = (uniform - share) / (1.0 - share)  # given that a row is not held out, it is uniform again
        return held, ~held & (rest < self.rate(table)), rest


@dataclass(slots=True)
class Looked:
    """What was seen in some slices; `merged` puts two into one, in any order.

    Attributes:
        held: of each slice, which rows are held out.
        picked: which are learned from.
        first: microseconds of the oldest decision.
        last: of the newest.
        ends: [g] rows to learn from until each earlier training.
        days: [d, 2] rows as `Survey.days`.
        rewards: those that are not held out.
        newest: highest log offset by partition.
        least_kept: the smallest probability that a row to judge on was kept with.
    """

    held: dict[int, Bits]
    picked: dict[int, Bits]
    first: int | None
    last: int | None
    ends: Ints
    days: Ints
    rewards: Rewards
    newest: dict[int, int]
    least_kept: float


def look_through(sample: Sample, number: int) -> Looked:
    """Return what is seen in the slice `number`."""
    part = sample.settled.own((*NARROW, "subject_id", "pass_probability"), *sample.slices[number])
    held, picked, uniform = sample.split(part)
    at, days, rewards = times_of(part), np.zeros((len(sample.rates), 2), np.int64), Rewards()
    np.add.at(days, (at // DAY - sample.first_day, is_rewarded(part, sample.settled.loop).astype(np.int64)), 1)
    rewards.add(part["reward"].to_numpy()[~held], uniform[~held])
    offsets = part.group_by("partition").aggregate([("offset", "max")]).to_pylist()
    return Looked(
        {number: (held.size, np.packbits(held))},
        {number: (held.size, np.packbits(picked))},
        int(at[0]) if at.size else None,
        int(at[-1]) if at.size else None,
        np.searchsorted(at[~held], sample.ends, side="right").astype(np.int64),
        days,
        rewards,
        {entry["partition"]: entry["offset_max"] for entry in offsets},
        float(part["pass_probability"].to_numpy()[held].min(initial=1.0)),
    )


def merged(one: Looked, other: Looked) -> Looked:
    """Return both as one."""
    one.rewards.merge(other.rewards)
    firsts = [at for at in (one.first, other.first) if at is not None]
    lasts = [at for at in (one.last, other.last) if at is not None]
    partitions = {*one.newest, *other.newest}
    return Looked(
        one.held | other.held,
        one.picked | other.picked,
        min(firsts, default=None),
        max(lasts, default=None),
        one.ends + other.ends,
        one.days + other.days,
        one.rewards,
        {number: max(one.newest.get(number, 0), other.newest.get(number, 0)) for number in partitions},
        min(one.least_kept, other.least_kept),
    )


def holdout_salt(loop: str) -> str:
    """Return the salt of the split; see `decision.split`."""
    return f"holdout {loop}"


def unpacked(bits: Bits) -> Bools:
    """Return [n] the rows that have a bit."""
    return np.unpackbits(bits[1], count=bits[0]).astype(np.bool_)
