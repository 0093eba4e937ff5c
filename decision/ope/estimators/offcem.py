"""OffCEM: the weight of the drawn action's group corrects a reward model (Saito, Ren, Joachims 2023, arXiv 2305.08062).

The model has to be right about differences within a group only; that rewards depend on the group alone, as MIPS needs,
is not assumed.
"""

from __future__ import annotations

from decision.ope.estimators.mips import group_weights
from decision.ope.estimators.registry import Mean

ESTIMATOR = Mean(
    lambda rows, weights: rows.direct + weights * rows.residual,
    weights=group_weights,
    needs=("grouped", "logging", "model"),
)
