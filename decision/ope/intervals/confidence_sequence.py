"""Confidence sequences: intervals that hold at every moment at once, however the moment to stop is chosen.

For terms X >= -b whose mean given the past is nu, ``xi = (X - m) / (b + m) >= -1`` at m = nu, and for every bet l in
[0, 1) ``exp(l xi - psi(l) xi^2) <= 1 + l xi`` with ``psi(l) = -ln(1 - l) - l`` (Fan, Grama, Liu 2015): a product of
such factors is wealth that grows only by chance, and so is its average over bets. Averaged over the gamma mixture of
Howard, Ramdas, McAuliffe, Sekhon 2021 (arXiv 1810.08240, prop. 9) it is a closed form of S = sum xi and V = sum xi^2,
hence of three sums, which may be merged in any order. Values m at which the wealth passes 1 / alpha are left out (Ville
1939); off-policy this is the confidence sequence of Karampatziakis, Mineiro, Ramdas 2021 (arXiv 2102.09540) with m
itself as the centre, where they use a running mean.

The order of time must be the order of the rows that are in the sums: any set of rows that was fixed by what was known
before them may be used, the first n above all.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import special

from decision.batch import Floats
from decision.errors import FieldError

RHO = 1.0
"""Where the mixture is tightest: at an intrinsic time V of a few times this."""

_GRID = 256
_ROUNDS = 4


def log_wealth(s: Floats, v: Floats, rho: float = RHO) -> Floats:
    """Return the log of the mixture's wealth at S and V, of any shape, V >= 0; -inf where S + V + rho <= 0."""
    a, x = v + rho, s + v + rho
    inside = x > 0
    safe = np.where(inside, x, 1.0)
    incomplete = np.log(np.maximum(special.gammainc(a, safe), 1e-300)) + special.gammaln(a)
    start = math.log(special.gammainc(rho, rho)) + math.lgamma(rho)
    out = s + v + rho * math.log(rho) - a * np.log(safe) + incomplete - start
    return np.where(inside, out, -np.inf)


def lower_bound(
    n: float, total: float, square: float, *, below: float, smallest: float, largest: float, alpha: float
) -> float:
    """Return a lower bound of the mean that holds at all times at once with probability 1 - alpha.

    Args:
        n: terms.
        total: their sum.
        square: sum of their squares.
        below: b >= 0, no term can be below -b.
        smallest: the mean cannot be below it.
        largest: nor above it.
        alpha: error probability, in (0, 1).

    Raises:
        FieldError: `alpha` is not in (0, 1), or the range of means is empty.
    """
    if not 0 < alpha < 1:
        raise FieldError("alpha", wanted="a number in (0, 1)", got=alpha)
    if not smallest < largest:
        raise FieldError("smallest", wanted=f"below largest = {largest}", got=smallest)
    if n <= 0:
        return smallest
    limit = math.log(1.0 / alpha)
    high = min(max(total / n, smallest), largest)
    # A mean of -b itself would need a division by 0.
    low = max(smallest, -below + 1e-6 * (largest - smallest))
    if low >= high:
        return smallest
    first = low
    # The wealth falls from `low` to the mean, where it is below 1: a grid, made finer around the last point above.
    for _ in range(_ROUNDS):
        grid = np.linspace(low, high, _GRID)
        scale = below + grid
        s = (total - n * grid) / scale
        v = np.maximum(square - 2.0 * grid * total + n * grid**2, 0.0) / scale**2
        beyond = np.flatnonzero(log_wealth(s, v) > limit)
        if not beyond.size:
            return smallest if low == first else low
        last = int(beyond[-1])
        if last == _GRID - 1:
            return high
        low, high = float(grid[last]), float(grid[last + 1])
    return low
