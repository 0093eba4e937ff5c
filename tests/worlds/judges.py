"""A world of judges of two kinds: what they weigh stands at a fixed angle, and each judges pairs of their own.

Both kinds are as predictable: the truth agrees with .83 of the judgements, and the one model that lies between them
with .71, in every seed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from decision.batch import Floats, Ints
from decision.fairness.latent_types import Judgements

COVARIATES, STEEPNESS, COSINE = 6, 2.85, 0.05


@dataclass
class Judges:
    """`count` judges of `kinds` kinds in turn; `seed` draws everything."""

    seed: int
    count: int = 40
    kinds: int = 2

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        basis = np.linalg.qr(self.rng.normal(size=(COVARIATES, COVARIATES)))[0]
        second = COSINE * basis[0] + np.sqrt(1.0 - COSINE**2) * basis[1]
        self.weights = STEEPNESS * np.stack([basis[0], second])[: self.kinds]
        self.kind: Ints = np.arange(self.count) % self.kinds

    def pairs(self, number: int) -> Floats:
        """Return [number, d] covariates of pairs."""
        return self.rng.normal(size=(number, COVARIATES))

    def unfair(self, covariates: Floats) -> Floats:
        """Return [n, kinds] probability that each kind calls each pair unfair."""
        return 1.0 / (1.0 + np.exp(-covariates @ self.weights.T))

    def judged(self, judge: Ints, covariates: Floats) -> Judgements:
        """Return what these judges say of these pairs."""
        p = self.unfair(covariates)[np.arange(judge.size), self.kind[judge]]
        return Judgements(judge, covariates, (self.rng.random(judge.size) < p).astype(np.float64))

    def said(self, each: int) -> Judgements:
        """Return `each` judgements of every judge, on pairs drawn at random."""
        judge = np.repeat(np.arange(self.count), each)
        return self.judged(judge, self.pairs(judge.size))
