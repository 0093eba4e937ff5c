"""RegCB by elimination: every action that some plausible model prefers, all alike.

    p uniform on {a : High_a >= max_a' Low_a'}      (Foster et al. 2018, arXiv 1803.01088)

High and Low are the largest and the smallest prediction over the plausible models. There the set is defined by a bound
on the loss; here it is the members of an oracle, bootstrapped or drawn from its posterior, so the guarantee does not
carry over. The distribution always sums to one, whatever ties.
"""

from __future__ import annotations

import numpy as np

from decision.batch import Floats, Ints
from decision.errors import FieldError
from decision.exploration.rule import Exploration, Rule
from decision.ragged import group_max, normalise, spread


def regcb(high: Floats, low: Floats, offsets: Ints) -> Floats:
    """Return [m] probabilities.

    Args:
        high: [m] largest plausible expected reward of every action, flat.
        low: [m] smallest, not above `high`.
        offsets: [n + 1].

    Raises:
        FieldError: a lower bound lies above its upper bound.
    """
    if not (low <= high).all():
        raise FieldError("low", wanted="bounds not above the upper ones", got=low)
    kept = high >= spread(group_max(low, offsets), offsets)
    return normalise(kept.astype(np.float64), offsets)


def _pmf(members: Floats, offsets: Ints, given: Exploration) -> Floats:
    return regcb(members.max(axis=0), members.min(axis=0), offsets)


RULE = Rule(_pmf, asks_members=True)
