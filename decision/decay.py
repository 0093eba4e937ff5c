"""Exponentially decayed counts and sums that merge in any order.

An event of age a weighs ``2^(-a / half_life)``. The state is a sum at a reference time, so events may arrive late and
out of order and shards may be added: the result is that of the events in order.
"""

from __future__ import annotations

from typing import NamedTuple


class Decayed(NamedTuple):
    """Decayed statistics of one subject.

    Attributes:
        count: decayed number of events, at `at`.
        total: decayed sum of their values, at `at`.
        at: reference time, in seconds; -inf before any event.
    """

    count: float = 0.0
    total: float = 0.0
    at: float = float("-inf")

    @property
    def mean(self) -> float:
        """Decayed mean of the values; 0 before any event."""
        return self.total / self.count if self.count > 0.0 else 0.0


def add(state: Decayed, value: float, at: float, *, half_life_s: float) -> Decayed:
    """Return the state with one more event of `value` at the time `at`, in seconds."""
    return merge(state, Decayed(1.0, value, at), half_life_s=half_life_s)


def merge(a: Decayed, b: Decayed, *, half_life_s: float) -> Decayed:
    """Return the state of both sets of events together, at the later reference time."""
    late, early = (a, b) if a.at >= b.at else (b, a)
    if early.count == 0.0:
        return late
    share = 2.0 ** (-(late.at - early.at) / half_life_s)
    return Decayed(late.count + share * early.count, late.total + share * early.total, late.at)
