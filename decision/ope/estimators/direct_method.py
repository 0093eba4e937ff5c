"""Direct method: the reward model's value of the policy (Beygelzimer and Langford 2009, "The offset tree", section 1).

Its interval knows only how much the value differs between contexts and nothing of the model's error, so it is far too
narrow: read it beside an estimator that corrects the model.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from decision.ope.estimate import Estimate
from decision.ope.rows import Rows
from decision.ope.sums.means import MeanSums

NOT_CORRECTED = "its interval leaves the reward model's error out"


def direct_sums(rows: Rows) -> MeanSums:
    """Return the mergeable sums of ``sum_a pi(a) q(a)``.

    Raises:
        FieldError: there is no reward model.
    """
    rows.model()
    return MeanSums.of(rows.direct, np.ones(len(rows)), rows.counts)


def direct(sums: MeanSums, *, level: float = 0.95) -> Estimate:
    """Return the estimate; it always carries the doubt that its interval leaves out the model's error."""
    found = sums.estimate(level)
    return replace(found, reasons=(*found.reasons, NOT_CORRECTED))
