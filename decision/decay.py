"""Exponentially decayed sums over a subject's decisions, mergeable in any order.

A decision of age a counts ``2^(-a / half_life)``. The sums hold at a reference time and are read at any later one, so
decisions and outcomes may arrive late, in any order and in any grouping: the result is that of one pass over them, up
to rounding.
"""

from __future__ import annotations

from typing import NamedTuple


class Decayed(NamedTuple):
    """Decayed sums of one subject, or a change to them.

    Attributes:
        decisions: decayed number of decisions.
        outcomes: decayed number of their outcomes.
        rewards: decayed sum of their rewards.
        at: time at which the sums hold, in seconds since 1970; -inf for sums over nothing.
    """

    decisions: float = 0.0
    outcomes: float = 0.0
    rewards: float = 0.0
    at: float = float("-inf")


def merge(a: Decayed, b: Decayed, *, half_life_s: float) -> Decayed:
    """Return the sums over both, at the later of their times.

    Args:
        a: sums, or a change: what one decision contributes, at the time of the decision.
        b: the same.
        half_life_s: age at which a decision counts half, in seconds, above 0.
    """
    late, early = (a, b) if a.at >= b.at else (b, a)
    share = _share(late.at - early.at, half_life_s)
    return Decayed(
        late.decisions + share * early.decisions,
        late.outcomes + share * early.outcomes,
        late.rewards + share * early.rewards,
        late.at,
    )


def faded(state: Decayed, at: float, *, half_life_s: float) -> Decayed:
    """Return the sums decayed to the time `at`, in seconds; a time before the state's own changes nothing."""
    share = _share(max(0.0, at - state.at), half_life_s)
    return Decayed(state.decisions * share, state.outcomes * share, state.rewards * share, max(at, state.at))


def mean_reward(state: Decayed) -> float:
    """Return the decayed mean reward per decision, 0 over nothing; it does not depend on when it is read."""
    return state.rewards / state.decisions if state.decisions > 0.0 else 0.0


def _share(age_s: float, half_life_s: float) -> float:
    # The age of nothing against nothing is NaN (-inf less -inf): both sums are 0, and any share will do.
    return 2.0 ** (-age_s / half_life_s) if age_s == age_s else 0.0
