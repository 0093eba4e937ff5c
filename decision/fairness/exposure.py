"""Exposure of items to a person over the slots of one decision, the recommender's unit of treatment.

The exposure of an item is the probability that it stands in a slot, weighted by how much the slot is looked at:
``sum_s w_s * P(item in slot s)`` with the discount ``w_s ~ 1 / log2(1 + s)`` (Järvelin and Kekäläinen 2002; exposure as
in Singh and Joachims 2018, arXiv 1802.07281). Weights sum to 1, so an exposure is in [0, 1] as a probability is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from decision.batch import Floats


def slot_weights(slots: int) -> Floats:
    """Return [slots] weights that sum to 1."""
    weights = 1.0 / np.log2(2.0 + np.arange(slots))
    return weights / weights.sum()


def exposure(slots: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the exposure of each item.

    Args:
        slots: probability of each item in each slot, the first slot first. Where slots are filled one after another
            these are the probabilities given the slots above; their mean over draws is the marginal.
    """
    out: dict[str, float] = {}
    for weight, pmf in zip(slot_weights(len(slots)), slots, strict=True):
        for item, probability in pmf.items():
            out[item] = out.get(item, 0.0) + float(weight) * probability
    return out
