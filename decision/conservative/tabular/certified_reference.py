"""StepMix from a reference that learns: the best policy certified so far takes the baseline's place.

While the baseline is played, its own visits already say which actions are good where it goes. The policy that is
greedy in the lower bounds (VI-LCB: Rashidinejad et al. 2021, arXiv 2103.12021) uses exactly those, and once its lower
bound meets the threshold and the baseline's own, it is as safe to mix from and worth more. Two changes to StepMix
follow from it: the waiting phase ends when *any* policy is certified, not when the baseline is, and the room between
the reference's bound and the threshold, which pays for exploration, is wider. Safety is StepMix's own argument, with
one more lower bound from the same confidence event.
"""

from __future__ import annotations

import numpy as np

from decision.batch import Floats
from decision.conservative.tabular import stepmix
from decision.conservative.tabular.confidence import Model, evaluate, pessimistic


def plan(model: Model, baseline: Floats, gamma: Floats, *, baseline_value: Floats | None = None) -> stepmix.Mixture:
    """Return the mixture to execute next.

    Args:
        model: empirical model and bonus constants.
        baseline: [n, H, S, A] the safe policy.
        gamma: [n] threshold on the expected return of every episode.
        baseline_value: [n] its value, where it is known exactly.
    """
    horizon = baseline.shape[1]
    learned, _ = pessimistic(model)
    lower_learned, _ = evaluate(model, learned)
    lower_baseline, _ = evaluate(model, baseline)
    if baseline_value is not None:
        lower_baseline = np.maximum(lower_baseline, baseline_value)
    better = lower_learned >= np.maximum(lower_baseline, gamma)
    reference = np.where(better[:, None, None, None], learned, baseline)
    known = None if baseline_value is None else np.where(better, lower_learned, baseline_value)
    mixture = stepmix.plan(model, reference, gamma, baseline_value=known)
    waiting = mixture.step > horizon
    policy = np.where(waiting[:, None, None, None], baseline, mixture.policy)
    return mixture._replace(policy=policy, lower=np.where(waiting, lower_baseline, mixture.lower))
