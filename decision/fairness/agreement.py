"""Krippendorff's alpha for nominal judgements: agreement beyond chance, with missing judgements.

``alpha = 1 - D_o / D_e`` from the matrix of coincidences (Krippendorff 2011, "Computing Krippendorff's
alpha-reliability", section C). 1 is agreement, 0 what chance gives, below 0 systematic disagreement.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

BANDS = (
    (0.8, "agree"),
    (0.667, "mostly agree"),
    (0.2, "agree in part"),
    (-1.0, "agree hardly more than chance would have it"),
)
"""From which alpha on auditors are said to do what.

From .8 on judgements may be relied upon, from .667 on for tentative conclusions (Krippendorff 2004, "Content Analysis",
p. 241). Below .2, which is ours, the gate trusts no panel unless its loop says otherwise.
"""


class Agreement(NamedTuple):
    """How far the auditors agree.

    Attributes:
        alpha: Krippendorff's alpha; None where everyone always said the same, or no unit was judged twice.
        pairwise: share of pairs of judgements on the same unit that are equal; None without such pairs.
        units: units judged twice or more.
        judgements: judgements on them.
    """

    alpha: float | None
    pairwise: float | None
    units: int
    judgements: int


def agreement(units: Iterable[Sequence[Hashable]], times: Iterable[int] | None = None) -> Agreement:
    """Return the agreement over units of judgements; units with fewer than two are ignored.

    Args:
        units: the judgements on each.
        times: how often each unit occurs, >= 0; once each where not given.
    """
    counted = ((unit, 1) for unit in units) if times is None else zip(units, times, strict=True)
    kept = [(list(unit), often) for unit, often in counted if len(unit) >= 2 and often]
    names: dict[Hashable, int] = {}
    for unit, _ in kept:
        for value in unit:
            names.setdefault(value, len(names))
    total = sum(len(unit) * often for unit, often in kept)
    if not kept:
        return Agreement(None, None, 0, 0)
    coincidences = np.zeros((len(names), len(names)))
    equal = pairs = 0.0
    for unit, often in kept:
        counts = np.bincount([names[value] for value in unit], minlength=len(names)).astype(np.float64)
        ordered = often * (np.outer(counts, counts) - np.diag(counts))
        coincidences += ordered / (len(unit) - 1)
        equal += float(np.trace(ordered))
        pairs += float(ordered.sum())
    margins = coincidences.sum(1)
    observed = total - float(np.trace(coincidences))
    expected = float(margins.sum() ** 2 - (margins**2).sum()) / (total - 1)
    alpha = None if expected == 0.0 else 1.0 - observed / expected
    return Agreement(alpha, equal / pairs, sum(often for _, often in kept), total)


def in_words(found: Agreement) -> str:
    """Return what auditors do who agree so far, to be read after "They": see `BANDS`."""
    if found.pairwise is None:
        return "have not judged the same pair yet"
    if found.alpha is None:
        return "have all said the same so far"
    return next((words for least, words in BANDS if found.alpha >= least), BANDS[-1][1])


def accuracy(judged: Mapping[str, Sequence[tuple[Hashable, Hashable]]]) -> dict[str, float]:
    """Return each judge's share of tasks with a known answer that they got right, from (said, known) by judge."""
    return {judge: sum(said == known for said, known in rows) / len(rows) for judge, rows in judged.items() if rows}
