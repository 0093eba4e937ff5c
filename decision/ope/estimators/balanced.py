"""Balanced weights for a log that several policies drew: each row as if drawn from their mixture.

``w = pi(a|x) / pbar(a|x)`` with ``pbar = sum_j n_j / n p_j(a|x)`` (the balance heuristic of Veach and Guibas 1995; for
off-policy evaluation Agarwal, Basu, Schnabel, Joachims 2017, arXiv 1703.06180): where one generation hardly drew an
action that another drew often, its rows no longer carry the log.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from decision.batch import Floats, Interactions
from decision.errors import FieldError


def balanced(interactions: Interactions, pmfs: Sequence[Floats], rows: Sequence[int]) -> Interactions:
    """Return the log with the mixture's probabilities in place of each generation's own.

    Args:
        interactions: the log, in which generation j drew `rows[j]` decisions.
        pmfs: [m] of every generation's policy on all the decisions of the log.
        rows: number of decisions that each generation drew in the whole log, of which this may be a shard.

    Raises:
        FieldError: shapes differ, there are no generations, or none of them could have drawn what was drawn.
    """
    if not pmfs or len(pmfs) != len(rows) or sum(rows) <= 0:
        raise FieldError("pmfs", wanted="one distribution for every generation", got=(len(pmfs), len(rows)))
    m = len(interactions.batch.actions)
    mixture = np.zeros(m)
    for pmf, count in zip(pmfs, rows, strict=True):
        if pmf.shape != (m,):
            raise FieldError("pmfs", wanted=f"[{m}] probabilities", got=pmf.shape)
        mixture += count / sum(rows) * pmf
    np.minimum(mixture, 1.0, out=mixture)  # shares of a certain action may round to a hair above 1
    propensity = mixture[interactions.chosen]
    if propensity.size and not float(propensity.min()) > 0:
        raise FieldError("pmfs", wanted="a generation that could draw what was drawn", got=float(propensity.min()))
    return replace(interactions, propensity=propensity, pmf=mixture)
