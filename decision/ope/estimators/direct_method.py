"""Direct method: the reward model's value of the policy (Beygelzimer and Langford 2009, "The offset tree", section 1).

Its interval knows only how much the value differs between contexts and nothing of the model's error, so it is far too
narrow: read it beside an estimator that corrects the model.
"""

from __future__ import annotations

import numpy as np

from decision.batch import Floats
from decision.ope.estimators.registry import Mean
from decision.ope.rows import Rows

NOT_CORRECTED = "its interval leaves the reward model's error out"


def direct_terms(rows: Rows) -> Floats:
    """Return [n] terms ``sum_a pi(a) q(a)``.

    Raises:
        FieldError: there is no reward model.
    """
    rows.model()
    return rows.direct


ESTIMATOR = Mean(
    lambda rows, weights: direct_terms(rows),
    weights=lambda rows: np.ones(len(rows)),
    needs=("model",),
    biased=True,
    doubt=NOT_CORRECTED,
)
