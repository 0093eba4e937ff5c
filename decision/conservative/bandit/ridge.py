"""Ridge regression with the self-normalised confidence ellipsoid (Abbasi-Yadkori, Pal, Szepesvari 2011, Theorem 2)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from decision.batch import Floats


class Ridge(NamedTuple):
    """Sums of a ridge regression.

    Attributes:
        inverse: [d, d] inverse of ``ridge * I + sum x x'``.
        response: [d] summed ``reward * x``.
        log_det: log of ``det(V) / det(ridge * I)``.
        ridge: prior precision, > 0.
    """

    inverse: Floats
    response: Floats
    log_det: float
    ridge: float

    @staticmethod
    def prior(dim: int, ridge: float = 1.0) -> Ridge:
        """Return the state before any data."""
        return Ridge(np.eye(dim) / ridge, np.zeros(dim), 0.0, ridge)

    def after(self, x: Floats, reward: float) -> Ridge:
        """Return the state after one ([d] features, reward) pair; Sherman-Morrison, O(d^2)."""
        k = self.inverse @ x
        grown = 1.0 + float(k @ x)
        return Ridge(
            self.inverse - np.outer(k, k) / grown,
            self.response + reward * x,
            self.log_det + float(np.log(grown)),
            self.ridge,
        )

    def estimate(self) -> Floats:
        """Return [d] the regularised least-squares estimate."""
        return self.inverse @ self.response

    def radius(self, *, noise: float, norm: float, delta: float) -> float:
        """Return beta: the true parameter lies within it of the estimate, in V's norm, at all times at once.

        Args:
            noise: sub-Gaussian scale of the rewards, 1/2 for rewards in [0, 1].
            norm: largest Euclidean norm of the true parameter.
            delta: error probability, in (0, 1).
        """
        return noise * float(np.sqrt(self.log_det + 2.0 * np.log(1.0 / delta))) + float(np.sqrt(self.ridge)) * norm

    def width(self, x: Floats) -> Floats:
        """Return [...] lengths of `x` ([..., d]) in the inverse's norm."""
        return np.sqrt(np.einsum("...i,ij,...j->...", x, self.inverse, x))
