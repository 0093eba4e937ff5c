"""Did something fall, vanish or grow between two samples of a log? Tests whose error holds at any rarity and skew.

Under the hypothesis that nothing changed, which rows came later is a matter of chance. So the number of later rows in
each class of values is hypergeometric given both samples (Fisher 1935), and the error is exact: no normal curve is
laid over clicks at .1% or over revenue. Values enter by their order and their differences alone, so no unit matters.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from decision.batch import Floats, Ints

BINS = 64
"""Classes that values are put into; the smallest and the largest have classes of their own."""
_DOUBTED = 2.0
"""Standard errors below which a fall is not looked at more closely."""


def fall(later: Floats, before: Floats, *, error: float, rng: np.random.Generator) -> float:
    """Return the p-value of "the mean of `later` is no lower", at most `error` once in 1 / error quiet logs.

    Args:
        later: [n] >= 1 values.
        before: [m] >= 1 values.
        error: the level that the answer is compared with; decides how many permutations are drawn.
        rng: draws them.
    """
    both = np.concatenate((later, before))
    spread = float(both.std())
    if spread == 0.0:
        return 1.0
    n, m = later.size, before.size
    z = (float(later.mean()) - float(before.mean())) / (spread * np.sqrt(1.0 / n + 1.0 / m))
    if z > -_DOUBTED:
        return float(ndtr(z))
    value, code = _classes(both)
    counts = np.bincount(code, minlength=value.size)
    seen = np.bincount(code[:n], minlength=value.size)
    if value.size == 2:
        return float(fewer(seen[1:], counts[1:] - seen[1:], n, m)[0])
    draws = round(10.0 / error)
    drawn = rng.multivariate_hypergeometric(counts, n, size=draws)
    scale = max(abs(float(value[0])), abs(float(value[-1])))
    sums = drawn @ (value / scale)
    return float((1 + np.count_nonzero(sums <= float(seen @ (value / scale)) + 1e-12 * n)) / (1 + draws))


def clipped(value: Floats) -> Floats:
    """Return [n] the values no farther from the most common one than the half of the others that are nearest to it.

    A few purchases carry most of a skewed revenue's mean and of its noise; without their size a fall of their number
    shows.
    """
    distinct, times = np.unique(value, return_counts=True)
    common = distinct[int(times.argmax())]
    others = np.abs(distinct - common)[distinct != common]
    reach = float(np.median(others)) if others.size else 0.0
    return np.clip(value, common - reach, common + reach)


def _classes(values: Floats) -> tuple[Floats, Ints]:
    """Return [c] the mean of each class, rising, and [n] the class of each value."""
    distinct, code = np.unique(values, return_inverse=True)
    if distinct.size <= BINS:
        return distinct, code.astype(np.int64)
    # Of equal numbers of distinct values: one value may be most of them, as 0 is where few buy.
    edges = np.linspace(0, distinct.size, BINS + 1).astype(np.int64)
    merged = np.repeat(np.arange(BINS), np.diff(edges))[code]
    sums = np.bincount(merged, weights=values, minlength=BINS)
    return sums / np.bincount(merged, minlength=BINS), merged


def fewer(later: Ints, before: Ints, n: int, m: int) -> Floats:
    """Return [c] p-values of "the later share is no smaller": `later` of `n` rows against `before` of `m`."""
    from scipy.stats import hypergeom  # half a second to import, for this alone

    return hypergeom.cdf(later, n + m, later + before, n)


def more(later: Ints, before: Ints, n: int | Ints, m: int | Ints) -> Floats:
    """Return [c] p-values of "the later share is no larger": `later` of `n` rows against `before` of `m`."""
    from scipy.stats import hypergeom

    return hypergeom.sf(later - 1, n + m, later + before, n)


def never_tried(offered: Floats, drawn: Ints, *, error: float, share: float) -> NDArray[np.bool_]:
    """Return [a] which actions a log should hold, had each but `share` of its fair share of draws, and does not.

    Args:
        offered: [a] the sum of 1 / K over the decisions between K actions that offered each.
        drawn: [a] how often each was drawn.
        error: chance that one of them is named although each had that share.
        share: of the uniform policy's probability.
    """
    return (drawn == 0) & (offered * share >= np.log(max(offered.size, 1) / error))
