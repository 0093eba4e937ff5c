"""Stored judgements under another quorum, sensitivity or multiplier, without asking anyone again.

Single judgements are kept as the largest gap each auditor accepts on a pair. Reports, costs and the learner's weights
are folds over the stored rounds, so another rule is another fold over the same material; at the original rule the
result is identical to the last bit.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from decision.batch import Floats
from decision.fairness.learners.experts import Weights, distribution, update
from decision.fairness.learners.losses import label_losses, report_losses
from decision.fairness.learners.multiplier import DualRule, after
from decision.fairness.panel import is_violation


@dataclass(frozen=True, slots=True)
class Round:
    """One stored window under one policy version.

    Attributes:
        predictions: [k, N] each hypothesis' probability of approval.
        approved: [k] 1 where the person was approved.
        labels: [k] outcome; anything where not approved.
        propensity: [k] logged probability of approval.
        pair: (favoured, disfavoured) positions shown to the panel, or None.
        acceptable: [m] largest gap each auditor accepted on that pair.
    """

    predictions: Floats
    approved: Floats
    labels: Floats
    propensity: Floats
    pair: tuple[int, int] | None
    acceptable: Floats


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a rule makes of the stored rounds.

    Attributes:
        weights: [N] of the hypotheses after the last round.
        upheld: positions of the rounds whose report the rule upholds.
        cost: the multiplier at the end.
    """

    weights: Floats
    upheld: tuple[int, ...]
    cost: float


def replay(
    rounds: Iterable[Round], *, alpha: float, quorum: float, cost: float, dual: DualRule | None = None
) -> Replayed:
    """Return what the rule (alpha, quorum, cost) makes of stored rounds, in the order given.

    Args:
        rounds: the stored windows; one or more.
        alpha: sensitivity.
        quorum: share of the panel that must agree, in (0, 1].
        cost: the multiplier at the start.
        dual: how it moves; fixed when not given.
    """
    state: Weights | None = None
    upheld: list[int] = []
    for position, row in enumerate(rounds):
        if state is None:
            state = Weights.prior(row.predictions.shape[1])
        losses = label_losses(row.predictions, row.approved, row.labels, row.propensity)
        stands = False
        if row.pair is not None:
            i, j = row.pair
            gap = np.array(row.propensity[i] - row.propensity[j])
            stands = bool(is_violation(gap, row.acceptable, alpha=alpha, quorum=quorum))
            if stands:
                losses = losses + report_losses(row.predictions[i], row.predictions[j], cost)
                upheld.append(position)
        state = update(state, losses)
        if dual is not None:
            cost = after(cost, float(stands), dual)
    weights = np.zeros(0) if state is None else distribution(state)
    return Replayed(weights, tuple(upheld), cost)
