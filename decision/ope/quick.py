"""IPS, SNIPS and DR of arrays at hand in one sweep: for weights that are known and a log that fits into memory.

Sums are numpy's own, so they are as fast as it is, and two orders of the same rows may differ in the last bits; where
shards have to merge to the same bits use `decision.ope.evaluation.sums`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy import special

from decision.batch import Floats
from decision.errors import FieldError, SupportError

_BLOCK = 16_384  # a block's columns stay in the cache


class Quick(NamedTuple):
    """An estimate with its normal interval."""

    value: float
    low: float
    high: float


def ips_snips_dr(
    weights: Floats, reward: Floats, direct: Floats, fitted: Floats, *, level: float = 0.95
) -> dict[str, Quick]:
    """Return IPS, SNIPS and DR with intervals, and the effective sample size as ``ess`` (without width).

    Args:
        weights: [n] importance weights.
        reward: [n].
        direct: [n] the reward model's value of the evaluation policy.
        fitted: [n] the reward model at the drawn action.
        level: coverage of the intervals.

    Raises:
        FieldError: lengths differ.
        SupportError: there are fewer than two rows, or all weights are 0.
    """
    n = len(weights)
    for name, column in (("reward", reward), ("direct", direct), ("fitted", fitted)):
        if len(column) != n:
            raise FieldError(name, wanted=f"[{n}] numbers", got=column.shape)
    if n < 2:
        raise SupportError("there are fewer than two rows to estimate from")
    wr, terms = np.empty(min(n, _BLOCK)), np.empty(min(n, _BLOCK))
    w_, ww, r_, rr, wwr, t_, tt = [0.0] * 7
    for start in range(0, n, _BLOCK):
        rows = slice(start, min(start + _BLOCK, n))
        w = weights[rows]
        product, term = wr[: len(w)], terms[: len(w)]
        np.multiply(w, reward[rows], out=product)
        np.multiply(w, fitted[rows], out=term)
        np.subtract(product, term, out=term)
        np.add(term, direct[rows], out=term)
        w_ += float(w.sum())
        r_ += float(product.sum())
        t_ += float(term.sum())
        ww += float(w @ w)
        rr += float(product @ product)
        wwr += float(w @ product)
        tt += float(term @ term)
    if w_ <= 0:
        raise SupportError("the log has no support for this policy: every weight is 0")
    z = float(special.ndtri(0.5 + level / 2.0))
    ratio = r_ / w_
    spread = max(rr - 2.0 * ratio * wwr + ratio**2 * ww, 0.0)
    return {
        "ips": _quick(r_ / n, z * math.sqrt(max(rr - r_**2 / n, 0.0) / (n - 1) / n)),
        "snips": _quick(ratio, z * math.sqrt(spread) / w_),
        "dr": _quick(t_ / n, z * math.sqrt(max(tt - t_**2 / n, 0.0) / (n - 1) / n)),
        "ess": _quick(w_**2 / ww, 0.0),
    }


def _quick(value: float, half: float) -> Quick:
    return Quick(value, value - half, value + half)
