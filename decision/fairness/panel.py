"""From single judgements to a panel's report.

An auditor sees a violation on the ordered pair (i, j) when the gap ``pi_i - pi_j`` exceeds the largest gap they would
accept plus the sensitivity alpha. A panel reports the pair when at least ``ceil(quorum * m)`` of its m auditors do
(Bechavod and Roth 2023, arXiv 2206.04475). That equals one virtual auditor whose acceptable gap is the q-th smallest,
so stored single judgements can be aggregated again under any quorum and sensitivity, without new human work.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from decision.batch import Floats, Ints
from decision.errors import FieldError


def votes_needed(auditors: int, quorum: float) -> int:
    """Return ceil(quorum * auditors), at least 1.

    Raises:
        FieldError: `quorum` is not in (0, 1] or there is no auditor.
    """
    if not 0 < quorum <= 1:
        raise FieldError("quorum", wanted="a number in (0, 1]", got=quorum)
    if auditors < 1:
        raise FieldError("auditors", wanted="1 or more", got=auditors)
    # Rounded first: .6 * 5 is 3.0000000000000004 in binary and must need 3 votes, not 4.
    return max(1, math.ceil(round(quorum * auditors, 9)))


def votes(gap: Floats, acceptable: Floats, alpha: float) -> Ints:
    """Return the number of auditors who see a violation.

    Args:
        gap: [...] gap ``pi_i - pi_j`` of each ordered pair.
        acceptable: [..., m] largest gap each auditor accepts on the pair.
        alpha: sensitivity, >= 0.
    """
    return (gap[..., None] > acceptable + alpha).sum(-1)


def is_violation(gap: Floats, acceptable: Floats, *, alpha: float, quorum: float) -> NDArray[np.bool_]:
    """Return whether the panel reports each pair; shapes as `votes`."""
    return votes(gap, acceptable, alpha) >= votes_needed(acceptable.shape[-1], quorum)


def threshold(acceptable: Floats, *, alpha: float, quorum: float) -> Floats:
    """Return [...] the virtual auditor's threshold on the gap: the q-th smallest acceptable gap, plus alpha."""
    needed = votes_needed(acceptable.shape[-1], quorum)
    return np.sort(acceptable, axis=-1)[..., needed - 1] + alpha
