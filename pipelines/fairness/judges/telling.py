"""Pairs that tell types apart: those on which an auditor's judgement is expected to say most about their type."""

from __future__ import annotations

import numpy as np

from decision.batch import Ints
from decision.fairness.latent_types import information
from decision.fairness.mining import Pairs
from pipelines.fairness.judges.judge_types import JudgeTypes
from pipelines.fairness.window import People

MOST_COMPARED = 5_000
"""Pairs with the largest gaps that are compared."""


def telling(found: JudgeTypes | None, people: People, pairs: Pairs, *, larger_than: float) -> Ints:
    """Return the positions of the pairs that tell types apart, the most telling first; none where there is one type.

    Args:
        found: the types among the loop's auditors.
        people: the people of the window.
        pairs: its pairs.
        larger_than: gap that a pair must exceed.
    """
    if found is None or len(found.types) == 1:
        return np.zeros(0, dtype=np.int64)
    order = np.argsort(-pairs.gap, kind="stable")
    places = order[pairs.gap[order] > larger_than][:MOST_COMPARED]
    cards = [(people.shown[int(pairs.favoured[at])], people.shown[int(pairs.disfavoured[at])]) for at in places]
    told = information(found.types, found.covariates.apply(cards, pairs.gap[places]))
    return places[np.argsort(-told, kind="stable")].astype(np.int64)
