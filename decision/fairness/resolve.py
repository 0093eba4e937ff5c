"""A panel's verdict on one pair from the judgements at hand: open, upheld, dismissed, disputed or without a quorum.

The threshold is `panel.votes_needed` of those who judged; abstentions are no votes. Where neither side reaches the
quorum and two or more stand on each, the panel is divided, and an adjudicator decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from decision.errors import FieldError
from decision.fairness.panel import votes_needed

Status = Literal["open", "upheld", "dismissed", "disputed", "no_quorum"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """How a panel decides.

    Attributes:
        auditors: members drawn for each pair.
        quorum: share of those who judged that must see a violation, in (0, 1].
        sensitivity: what the gap must exceed the acceptable one by, in [0, 1].
        minimum: judgements without which there is no verdict.
        deadline_s: time to judge, in seconds.

    Raises:
        FieldError: a number is outside its range.
    """

    auditors: int = 5
    quorum: float = 0.6
    sensitivity: float = 0.0
    minimum: int = 3
    deadline_s: float = 259_200.0

    def __post_init__(self) -> None:
        if not 1 <= self.auditors <= 99:
            raise FieldError("auditors", wanted="1 to 99", got=self.auditors)
        if not 1 <= self.minimum <= self.auditors:
            raise FieldError("minimum", wanted=f"1 to {self.auditors}, the panel's size", got=self.minimum)
        votes_needed(self.auditors, self.quorum)
        if not 0.0 <= self.sensitivity <= 1.0:
            raise FieldError("sensitivity", wanted="a number in [0, 1]", got=self.sensitivity)
        if not self.deadline_s > 0:
            raise FieldError("deadline_s", wanted="a number of seconds above 0", got=self.deadline_s)


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
    status: Status
    if not complete:
        status = "open"
    elif len(voted) < rule.minimum:
        status = "no_quorum"
    elif unfair >= needed:
        status = "upheld"
    elif fair < needed and min(unfair, fair) >= 2:
        status = "disputed"
    else:
        status = "dismissed"
    return Tally(status, unfair, fair, abstained, needed)
