"""Applications that rank by themselves, rightly in some contexts and by chance in others: the world of the study.

Five actions pay 0 or 1 with logit c_a + T_a'x + U_a'z. Context x has six numbers. The ranker sees two more, z, which
the service does not: a ranking then says what no feature does. Where x_0 lies below an edge, the ranker orders actions
by their true chances, elsewhere at random. All numbers are ours; values are exact expected rewards.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import expit

from decision.batch import Batch, Floats, Interactions, Ints
from simulators.studies.auxiliary import ACTIONS, NUMBERS, batch_of, with_constant
from simulators.studies.regression_oracle import draw

EDGES = {"right": np.inf, "mostly right": 0.5, "seldom right": -0.5}
"""Rankers, by what x_0 has to be below for their order to be the true one: in all, .69 and .31 of the contexts."""
_HIDDEN = 2


class Visitors(NamedTuple):
    """n decisions: what the service sees, and what is true.

    Attributes:
        batch: [n] decisions, each with its actions in the order of the ranker.
        mean: [m] chance of a reward of each action, flat, in that order.
        shown: [n, A] the action at each place.
        x: [n, D] contexts.
    """

    batch: Batch
    mean: Floats
    shown: Ints
    x: Floats


class World(NamedTuple):
    """Coefficients of the logits: of x with the constant first ([A, 1 + D]), and of z ([A, H])."""

    seen: Floats
    hidden: Floats

    def visitors(self, n: int, edge: float, rng: np.random.Generator) -> Visitors:
        """Return n visitors whose actions are ranked rightly where x_0 lies below `edge`."""
        x, z = rng.normal(size=(n, NUMBERS)), rng.normal(size=(n, _HIDDEN))
        mean = expit(with_constant(x) @ self.seen.T + z @ self.hidden.T)
        by = np.where(x[:, :1] < edge, mean, rng.random((n, ACTIONS)))
        shown = np.argsort(-by, axis=1)
        return Visitors(batch_of(x, shown), np.take_along_axis(mean, shown, axis=1).ravel(), shown, x)

    def seen_best(self, visitors: Visitors, rng: np.random.Generator, draws: int = 100) -> float:
        """Return what the best policy is worth that sees x alone; the mean over z is that of `draws` draws."""
        logit = with_constant(visitors.x) @ self.seen.T
        hidden = rng.normal(size=(draws, _HIDDEN)) @ self.hidden.T
        expected = np.mean([expit(logit + one) for one in hidden], axis=0)
        taken = np.take_along_axis(expected, visitors.shown, axis=1).argmax(axis=1)
        return float(visitors.mean.reshape(-1, ACTIONS)[np.arange(len(taken)), taken].mean())


def world_of(seed: int) -> World:
    """Return the world of a seed."""
    rng = np.random.default_rng([seed, 71])
    seen, hidden = 0.5 * rng.normal(size=(ACTIONS, 1 + NUMBERS)), 0.5 * rng.normal(size=(ACTIONS, _HIDDEN))
    seen[:, 0] -= 1.0
    return World(seen, hidden)


def logged(visitors: Visitors, pmf: Floats, rng: np.random.Generator) -> Interactions:
    """Return what happens when actions are drawn by `pmf` ([m])."""
    chosen = draw(pmf, visitors.batch.offsets, rng)
    reward = (rng.random(chosen.size) < visitors.mean[chosen]).astype(np.float64)
    return Interactions(visitors.batch, chosen, pmf[chosen], reward, pmf)


def together(visitors: Sequence[Visitors], logs: Sequence[Interactions]) -> Interactions:
    """Return the nights' logs as one; each is of its visitors."""
    x, shown = (np.concatenate([getattr(one, name) for one in visitors]) for name in ("x", "shown"))
    before = np.cumsum([0, *[len(log) * ACTIONS for log in logs]])
    return Interactions(
        batch_of(x, shown),
        np.concatenate([log.chosen + start for log, start in zip(logs, before, strict=False)]),
        *(np.concatenate([getattr(log, name) for log in logs]) for name in ("propensity", "reward", "pmf")),
    )


def value(visitors: Visitors, pmf: Floats) -> float:
    """Return the mean expected reward of `pmf` ([m]) over the optimum's, which knows every chance."""
    mean = visitors.mean.reshape(-1, ACTIONS)
    return float((pmf.reshape(-1, ACTIONS) * mean).sum(axis=1).mean() / mean.max(axis=1).mean())
