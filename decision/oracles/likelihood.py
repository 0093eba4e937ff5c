"""Penalised log-loss of 0/1 targets, and its least point.

A search over all rows is a few hundred passes. A few rows know the optimum and the curvatures around it roughly; in the
coordinates which make those curvatures a sphere, a dozen passes over all rows end where hundreds did.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from scipy import optimize

from decision.oracles.design import Part, Sizes
from decision.parts import Parts
from decision.ragged import Floats

GRADIENT = 1e-7
"""Slope of the mean loss, in every weight, at which a fit has converged."""
_ROUGH = 1e-4  # that of a few rows, which then have said enough
_STEPS = 2_000


class DesignRows:
    """Parts of a design with their [r] targets in [0, 1] and [r] weights, to be gone over again and again."""

    def __init__(self, sizes: Sizes, kept: Parts) -> None:
        self._sizes, self._kept = sizes, kept
        self._held: list[tuple[Part, Floats, Floats]] = []
        self.total = 0.0

    def append(self, part: Part, target: Floats, weight: Floats) -> None:
        """Add a part."""
        if self._kept.append([target, weight, *part.arrays()]):
            self._held.append((part, target, weight))
        self.total += float(weight.sum())

    def __iter__(self) -> Iterator[tuple[Part, Floats, Floats]]:
        yield from self._held
        for target, weight, *arrays in self._kept.read():
            yield Part.of(arrays, self._sizes), target, weight

    def loss(self, beta: Floats, mean: Floats, precision: Floats) -> tuple[float, Floats]:
        """Return the log-loss plus the prior's penalty under [width] weights, and its slope, per unit of weight."""
        off = beta - mean
        slope = precision * off
        value = 0.5 * float(slope @ off)
        for part, y, w in self:
            logit = part.logits(beta)
            small = np.exp(-np.abs(logit))
            # summed by numpy, not by BLAS, whose threads change the order of a long sum
            value += float(np.sum(w * (np.log1p(small) + np.maximum(logit, 0.0) - y * logit)))
            p = np.where(logit < 0.0, small, 1.0) / (1.0 + small)
            slope += part.slope(w * (p - y))
        return value / self.total, slope / self.total

    def curvature(self, beta: Floats) -> Floats:
        """Return [width] the second derivatives of the summed log-loss."""
        found = np.zeros(beta.size)
        for part, _, w in self:
            p = sigmoid(part.logits(beta))
            found += part.curvature(w * p * (1.0 - p))
        return found

    def curvatures(self, beta: Floats) -> Floats:
        """Return [width, width] those of every two weights; the parts are written out."""
        found = np.zeros((beta.size, beta.size))
        for part, _, w in self:
            p = sigmoid(part.logits(beta))
            found += part.curvatures(w * p * (1.0 - p))
        return found


def least(
    rows: DesignRows,
    mean: Floats,
    precision: Floats,
    pilot: DesignRows | None = None,
    watch: Callable[[int], None] | None = None,
    *,
    scaled: bool = False,
) -> Floats:
    """Return the [width] weights of least loss, searched from the prior's mean.

    Args:
        rows: what to fit.
        mean: [width] the prior's.
        precision: [width] likewise.
        pilot: a few of the rows, written out, whose weights sum to those of all: they are asked first.
        watch: told how often all rows have been gone over.
        scaled: without a pilot, search in coordinates in which every weight has the same curvature at the start: where
            many weights have few rows each.

    Raises:
        ArithmeticError: the search did not converge.
    """
    if pilot is None and scaled:
        return _scaled(rows, mean, precision, watch)
    if pilot is None:
        return _minimise(rows, mean, precision, mean, None, GRADIENT, watch)
    try:
        start = _minimise(pilot, mean, precision, mean, None, _ROUGH)
        guess = pilot.curvatures(start)
        unseen = np.diag(guess) == 0.0  # a weight that the few say nothing of has its curvature among all
        guess += np.diag(precision + np.where(unseen, rows.curvature(start), 0.0))
        return _minimise(rows, mean, precision, start, _factor(guess / rows.total), GRADIENT, watch)
    except ArithmeticError:  # the few are not like all: their guess is worse than none
        return _scaled(rows, mean, precision, watch)


def _scaled(rows: DesignRows, mean: Floats, precision: Floats, watch: Callable[[int], None] | None) -> Floats:
    guess = np.sqrt((precision + rows.curvature(mean)) / rows.total)
    return _minimise(rows, mean, precision, mean, guess, GRADIENT, watch)


def sigmoid(logit: Floats) -> Floats:
    """Return 1 / (1 + exp(-logit))."""
    return 1.0 / (1.0 + np.exp(-np.clip(logit, -500.0, 500.0)))


def _minimise(
    rows: DesignRows,
    mean: Floats,
    precision: Floats,
    start: Floats,
    factor: Floats | None,
    gradient: float,
    watch: Callable[[int], None] | None = None,
) -> Floats:
    """Return the [width] weights of least loss, searched from `start` in the coordinates that `factor` makes.

    Args:
        rows: what to fit.
        mean: [width] the prior's.
        precision: [width] likewise.
        start: [width] weights.
        factor: [width, width] lower triangle L of a guess L L' of the curvatures, or [width] its diagonal where there
            is nothing else; None for the identity. The search goes over z = L' weights, where a good guess leaves a
            bowl as wide as it is long.
        gradient: steepest slope of the mean loss, in any weight, at which the search has converged.
        watch: told the number of passes after each.

    Raises:
        ArithmeticError: it did not converge.
    """
    steepest, passes = np.inf, 0

    def loss(z: Floats) -> tuple[float, Floats]:
        nonlocal steepest, passes
        beta = z if factor is None else _solved(factor, z, transposed=True)
        value, slope = rows.loss(beta, mean, precision)
        steepest, passes = float(np.abs(slope).max()), passes + 1
        if watch is not None:
            watch(passes)
        return value, slope if factor is None else _solved(factor, slope)

    def stop(intermediate_result: object) -> None:
        if steepest <= gradient:
            raise StopIteration

    options = {"maxiter": _STEPS, "maxfun": 2 * _STEPS, "maxcor": 20, "ftol": 0.0}
    options["gtol"] = gradient if factor is None else 0.0
    first = start if factor is None else factor * start if factor.ndim == 1 else factor.T @ start
    found: Any = optimize.minimize(loss, first, jac=True, method="L-BFGS-B", options=options, callback=stop)
    if steepest > 100.0 * gradient:
        raise ArithmeticError(f"logistic regression did not converge: {found.message}")
    return np.asarray(found.x if factor is None else _solved(factor, found.x, transposed=True), dtype=np.float64)


def _factor(matrix: Floats) -> Floats:
    """Return the lower triangle L with L L' = `matrix` ([s, s]), by loops of numpy's own; LAPACK's threads round."""
    lower = matrix.copy()
    for j in range(len(lower)):
        lower[j, j + 1 :] = 0.0
        lower[j:, j] /= np.sqrt(lower[j, j])
        lower[j + 1 :, j + 1 :] -= np.multiply.outer(lower[j + 1 :, j], lower[j + 1 :, j])
    return lower


def _solved(lower: Floats, right: Floats, *, transposed: bool = False) -> Floats:
    """Return x with L x = `right` ([s]), or with L' x."""
    if lower.ndim == 1:
        return right / lower
    left = right.copy()
    if transposed:
        for j in range(left.size - 1, -1, -1):
            left[j] /= lower[j, j]
            left[:j] -= lower[j, :j] * left[j]
    else:
        for j in range(left.size):
            left[j] /= lower[j, j]
            left[j + 1 :] -= lower[j + 1 :, j] * left[j]
    return left
