"""A panel's verdict on one pair from the judgements at hand: open, upheld, dismissed, disputed or without a quorum.

The threshold is `panel.votes_needed` of those who judged; abstentions are no votes. Where neither side reaches the
quorum and two or more stand on each, the panel is divided, and an adjudicator decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from decision.fairness.panel import votes_needed
from decision.fairness.rule import Rule

Status = Literal["open", "upheld", "dismissed", "disputed", "no_quorum"]


class Tally(NamedTuple):
    """How a panel stands.

    Attributes:
        status: its verdict so far.
        unfair: votes for a violation.
        fair: votes against.
        abstained: members who could not tell.
        needed: votes that uphold.
    """

    status: Status
    unfair: int
    fair: int
    abstained: int
    needed: int


def tally(gap: float, acceptable: Sequence[float | None], rule: Rule, *, complete: bool) -> Tally:
    """Return how the panel stands on a pair.

    Args:
        gap: difference of the two probabilities, >= 0.
        acceptable: largest gap each member accepts; None for one who could not tell.
        rule: the panel's rule.
        complete: nobody will judge any more: all did, or the deadline is over.
    """
    voted = [limit for limit in acceptable if limit is not None]
    unfair = sum(gap > limit + rule.sensitivity for limit in voted)
    fair, abstained = len(voted) - unfair, len(acceptable) - len(voted)
    needed = votes_needed(max(len(voted), 1), rule.quorum)
    status: Status = verdict_of(unfair, fair, rule) if complete else "open"
    return Tally(status, unfair, fair, abstained, needed)


def verdict_of(unfair: int, fair: int, rule: Rule) -> Status:
    """Return the verdict of a complete panel with these votes; abstentions are none.

    Args:
        unfair: votes for a violation, >= 0.
        fair: votes against, >= 0.
        rule: the panel's rule.
    """
    voted = unfair + fair
    needed = votes_needed(max(voted, 1), rule.quorum)
    if voted < rule.minimum:
        return "no_quorum"
    if unfair >= needed:
        return "upheld"
    return "disputed" if fair < needed and min(unfair, fair) >= 2 else "dismissed"
