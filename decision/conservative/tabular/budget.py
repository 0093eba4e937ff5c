"""A cumulative budget: the optimistic policy whenever the bounds saved so far can pay for it.

In the manner of CUCBVI (Garcelon, Ghavamzadeh, Lazaric, Pirotta 2020, arXiv 2002.03218): after k episodes the summed
lower bounds of what was played, plus that of the optimistic policy now, must reach k thresholds. Bounds are kept as
they stood when each episode was played. The constraint holds in total; single episodes may break it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from decision.batch import Floats
from decision.conservative.tabular.confidence import Model, evaluate, optimistic


class Offer(NamedTuple):
    """What may be played until the next planning.

    Attributes:
        policy: [n, H, S, A] the optimistic policy.
        lower: [n] its lower bound.
        lower_baseline: [n] the baseline's lower bound, or its value where that is known.
    """

    policy: Floats
    lower: Floats
    lower_baseline: Floats


def plan(model: Model, baseline: Floats, *, baseline_value: Floats | None = None) -> Offer:
    """Return the offer of the present counts."""
    aim, _ = optimistic(model)
    lower, _ = evaluate(model, aim)
    lower_baseline, _ = evaluate(model, baseline)
    return Offer(aim, lower, lower_baseline if baseline_value is None else baseline_value)


def affordable(offer: Offer, saved: Floats, gamma: Floats) -> Floats:
    """Return [n] 1.0 where the optimistic policy may be played in the next episode.

    Args:
        offer: the present offer.
        saved: [n] summed (lower bound - threshold) of the episodes played.
        gamma: [n] threshold per episode.
    """
    return (saved + offer.lower - gamma >= 0).astype(np.float64)


def saved_after(offer: Offer, saved: Floats, gamma: Floats, explored: Floats) -> Floats:
    """Return [n] the budget after one episode, `explored` ([n], 0 or 1) saying which policy was played."""
    return saved + explored * offer.lower + (1.0 - explored) * offer.lower_baseline - gamma
