"""The hard gate: the optimistic policy once its own lower bound meets the threshold, the baseline until then.

The rule of most rollout tools, kept to show its deadlock: the baseline never visits what the candidate would, so the
candidate's bound never tightens and the gate may stay closed for ever.
"""

from __future__ import annotations

import numpy as np

from decision.batch import Floats
from decision.conservative.tabular.confidence import Model, evaluate, optimistic


def plan(model: Model, baseline: Floats, gamma: Floats) -> tuple[Floats, Floats]:
    """Return the policy [n, H, S, A] to execute and its [n] claimed lower bounds (gamma for the baseline)."""
    aim, _ = optimistic(model)
    lower, _ = evaluate(model, aim)
    opened = lower >= gamma
    return np.where(opened[:, None, None, None], aim, baseline), np.where(opened, lower, gamma)
