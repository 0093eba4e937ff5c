"""The rule of a panel: how many judge a pair, and what upholds it."""

from __future__ import annotations

from decision.errors import FieldError
from decision.options import Auditors, Positive, Quorum, Share
from decision.validation import Checked


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
