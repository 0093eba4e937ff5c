"""Votes of an oracle's members: Thompson sampling over posterior draws, or a bag's majority.

    p(a) = share of the members under which a is the best

(Thompson 1933 for draws from a posterior; Agarwal et al. 2014, section 3, and Eckles and Kaptein 2014 for bootstrapped
members.) The members are fixed with the model, so the probability is exact for the policy that is served; against
sampling afresh from the posterior it errs by at most 1 / (2 sqrt S) in standard deviation for S members. An action
without a vote has probability 0: serve it under a floor.
"""

from __future__ import annotations

import numpy as np

from decision.batch import Floats, Ints
from decision.errors import FieldError
from decision.exploration.greedy import greedy
from decision.exploration.rule import Exploration, Rule


def votes(members: Floats, offsets: Ints) -> Floats:
    """Return [m] probabilities; a member's tied actions share its vote.

    Args:
        members: [S, m] expected rewards under each member, S >= 1.
        offsets: [n + 1].

    Raises:
        FieldError: there is no member.
    """
    if not len(members):
        raise FieldError("members", wanted="one or more", got=0)
    total = np.zeros(members.shape[1])
    for scores in members:
        total += greedy(scores, offsets)
    return total / len(members)


def _pmf(members: Floats, offsets: Ints, given: Exploration) -> Floats:
    return votes(members, offsets)


RULE = Rule(_pmf, asks_members=True)
