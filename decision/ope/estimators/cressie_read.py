"""Empirical likelihood with the Cressie-Read power -2 (Karampatziakis, Langford, Mineiro 2019, arXiv 1906.03323).

Of all reweightings of the log under which the mean weight is 1, the closest one; a row that was not seen may lie at the
smallest or largest possible weight. Formula and known values: the `estimators` package of the VowpalWabbit project,
`cressieread.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import special

from decision.errors import FieldError
from decision.ope.estimate import Estimate
from decision.ope.estimators.registry import OwnSums
from decision.ope.rows import Rows
from decision.ope.sums.exact import rounded
from decision.ope.sums.moments import Moments


@dataclass(frozen=True, slots=True)
class CressieReadSums:
    """Sums of 1, w, w r and of their products, of rewards and the range they lie in; `+` merges shards.

    Attributes:
        moments: of the columns 1, w, w r and r.
        smallest: smallest weight possible or seen.
        largest: largest weight possible or seen.
        low: smallest reward possible.
        high: largest reward possible.
    """

    moments: Moments
    smallest: float
    largest: float
    low: float
    high: float

    @staticmethod
    def of(rows: Rows, *, low: float, high: float, smallest: float = 0.0, largest: float = math.inf) -> CressieReadSums:
        """Return the sums of the rows; `largest` may be infinite when no bound of the weights is known.

        Raises:
            FieldError: the range of rewards is empty or a reward lies outside of it.
        """
        if not low < high:
            raise FieldError("low", wanted=f"below high = {high}", got=low)
        if len(rows) and not (float(rows.reward.min()) >= low and float(rows.reward.max()) <= high):
            got = (float(rows.reward.min()), float(rows.reward.max()))
            raise FieldError("reward", wanted=f"numbers in [{low}, {high}]", got=got)
        weights = rows.weight
        columns = [np.ones(len(rows)), weights, weights * rows.reward, rows.reward]
        return CressieReadSums(
            Moments.of(columns, weights, rows.counts),
            min(smallest, float(weights.min(initial=math.inf))),
            max(largest, float(weights.max(initial=-math.inf))),
            low,
            high,
        )

    def __add__(self, other: CressieReadSums) -> CressieReadSums:
        return CressieReadSums(
            self.moments + other.moments,
            min(self.smallest, other.smallest),
            max(self.largest, other.largest),
            min(self.low, other.low),
            max(self.high, other.high),
        )


def cressie_read(sums: CressieReadSums, *, level: float = 0.95) -> Estimate | None:
    """Return the estimate with its empirical-likelihood interval, or None without a single row."""
    if not sums.moments.support.n:
        return None
    n, w, wr, r = sums.moments.totals.tolist()
    second = [rounded(part) for part in sums.moments.second]
    ww, wwr, wwrr = second[4], second[5], second[7]
    totals = _Totals(n, w, ww, wr, wwr, wwrr)
    value = _point(totals, r, sums)
    low, high = _interval(totals, sums, level)
    support = sums.moments.support
    return Estimate(value, min(low, value), max(high, value), level, support.n, support.ess, support.doubts())


class _Totals(NamedTuple):
    """Rows n, and the sums of w, w^2, w r, w^2 r and w^2 r^2."""

    n: float
    w: float
    ww: float
    wr: float
    wwr: float
    wwrr: float


def _point(totals: _Totals, r: float, sums: CressieReadSums) -> float:
    n, w, ww, wr, wwr, _ = totals
    fake = sums.largest if w < n else sums.smallest
    if math.isinf(fake):
        gamma, beta = -(1.0 + n) / n, 0.0
    else:
        a, b = (fake + w) / (1.0 + n), (fake**2 + ww) / (1.0 + n)
        if a**2 - b >= -1e-12 * max(b, 1.0):  # all weights alike: the mean is all there is
            gamma, beta = -(1.0 + n) / n, 0.0
        else:
            gamma, beta = (b - a) / (a**2 - b), (1.0 - a) / (a**2 - b)
    value = (-gamma * wr - beta * wwr) / (1.0 + n)
    rest = max(0.0, 1.0 - (-gamma * w - beta * ww) / (1.0 + n))
    # What no row answers for is given the mean logged reward.
    return min(max(value + rest * r / n, sums.low), sums.high)


def _interval(totals: _Totals, sums: CressieReadSums, level: float) -> tuple[float, float]:
    n = totals.n
    if n < 2:
        return sums.low, sums.high
    threshold = float(special.fdtri(1, n, level))
    phi = (-_least_divergence(totals, sums) - threshold) / (2.0 * (1.0 + n))
    ends: list[float] = []
    for sign, reward in ((1.0, sums.low), (-1.0, sums.high)):
        found = [
            bound
            for fake in (sums.smallest, sums.largest)
            if (bound := _bound(totals, fake, reward, sign=sign, phi=phi)) is not None
        ]
        ends.append(min(max(sign * min(found), sums.low), sums.high) if found else reward)
    return ends[0], ends[1]


def _least_divergence(totals: _Totals, sums: CressieReadSums) -> float:
    n, w, ww = totals[:3]
    # That of the reweighting with mean weight 1, whatever the value.
    fake = sums.largest if w < n else sums.smallest
    if math.isinf(fake):
        return 1.0 + 1.0 / n
    a, b = (fake + w) / (1.0 + n), (fake**2 + ww) / (1.0 + n)
    return (1.0 + n) * (a - 1.0) ** 2 / (b - a**2) if b > a**2 else 0.0


def _bound(totals: _Totals, fake: float, reward: float, *, sign: float, phi: float) -> float | None:
    n, w, ww, wr, wwr, wwrr = totals
    if math.isinf(fake):
        x = sign * (reward + (wr - w * reward) / n)
        y = (reward * w - wr) ** 2 / (n * (1.0 + n)) - (reward**2 * ww - 2.0 * reward * wwr + wwrr) / (1.0 + n)
        z = phi + 1.0 / (2.0 * n)
    else:
        a, b = (fake + w) / (1.0 + n), (fake**2 + ww) / (1.0 + n)
        c = sign * (fake * reward + wr) / (1.0 + n)
        d = sign * (fake**2 * reward + wwr) / (1.0 + n)
        e = (fake**2 * reward**2 + wwrr) / (1.0 + n)
        spread = b - a**2
        if spread <= 0:
            return None
        x = c + (1.0 - a) * (d - a * c) / spread
        y = (d - a * c) ** 2 / spread - (e - c**2)
        z = phi + 0.5 * (1.0 - a) ** 2 / spread
    product = y * z
    return x - math.sqrt(2.0 * product) if product >= 0 and z <= 0 else None


ESTIMATOR = OwnSums(lambda rows, low, high: CressieReadSums.of(rows, low=low, high=high), cressie_read)
