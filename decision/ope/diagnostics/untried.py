"""What a policy would do that the log hardly ever did: nobody can say what it brings.

Weights say the same of single decisions, where distributions are known and the sample is large; but an action drawn by
accident once in a thousand decisions has a weight and no evidence. So actions are asked by themselves, as Sim2Rec asks
which of them were executed (Chen et al. 2023, arXiv 2305.04832).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from decision.batch import Floats, Interactions
from decision.columns import Texts

SHOWN = 1.0 / 400.0
"""Share of the decisions in which an action must have been shown to count as executed: less is a floor's accident."""
LEAST = SHOWN / 2.0
"""The same of a sample, by those that offered it: half, so that chance calls nothing untried that was executed."""


@dataclass(frozen=True, slots=True)
class Untried:
    """Of a policy's own choices, those that the log hardly ever made.

    Attributes:
        share: of its probability, without what a floor gives to every action.
        actions: which, most probable first.
    """

    share: float
    actions: tuple[str, ...]


def untried(interactions: Interactions, pmf: Floats, *, floor: float = 0.0) -> Untried:
    """Return the share of a policy's choices on actions drawn in fewer than 1 of 800 decisions that offered them.

    Args:
        interactions: n >= 1 logged decisions.
        pmf: [m] the policy's probabilities for them, flat.
        floor: share of its decisions drawn uniformly, in [0, 1).
    """
    batch = interactions.batch
    sizes = np.diff(batch.offsets)
    own = np.maximum(pmf - floor / np.repeat(sizes, sizes), 0.0) / (1.0 - floor)
    texts = Texts.of(batch.action_ids)
    count = len(texts.names)
    offered = np.bincount(texts.code, minlength=count)
    drawn = np.bincount(texts.code[interactions.chosen], minlength=count)
    mass = np.bincount(texts.code, weights=own, minlength=count) / len(interactions)
    rare = np.flatnonzero((drawn < LEAST * offered) & (mass > 0.0))
    order = rare[np.argsort(-mass[rare], kind="stable")]
    return Untried(float(mass[rare].sum()), tuple(texts.names[number] for number in order.tolist()))
