"""A panel's verdict on one pair from the judgements at hand: open, upheld, dismissed, disputed or without a quorum.

The threshold is `panel.votes_needed` of those who judged; abstentions are no votes. Where neither side reaches the
quorum and two or more stand on each, the panel is divided, and an adjudicator decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from decision.errors import FieldError
from decision.fairness.panel import votes_needed
from decision.options import Auditors, Positive, Quorum, Share
from decision.validation import Checked

Status = Literal["open", "upheld", "dismissed", "disputed", "no_quorum"]


class Rule(Checked, frozen=True, kw_only=True, forbid_unknown_fields=True):
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

    auditors: Auditors = 5
    quorum: Quorum = 0.6
    sensitivity: Share = 0.0
    minimum: Auditors = 3
    deadline_s: Positive = 259_200.0

    def _relations(self) -> None:
        if self.minimum > self.auditors:
            raise FieldError("minimum", wanted=f"at most auditors = {self.auditors}", got=self.minimum)


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
