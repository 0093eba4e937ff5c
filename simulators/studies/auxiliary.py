"""Clicks beside purchases, and nights in which equally good actions change places: the worlds of the study.

Both worlds have five actions and contexts of six numbers; all numbers are ours. In the shop an action is clicked with
logit c_a + C_a'x. Where clicks are aligned, .08 of them buy; where they mislead, purchases have a logit of their own,
v_a + V_a'x, that knows nothing of clicks. In the nights, actions pay with logit t_a + T_a'x, and differ little.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from scipy.special import expit

from decision.batch import Batch, Floats, Interactions, Ints
from decision.columns import FeatureRows, Texts
from decision.oracles.kept import MOST, kept

ACTIONS, NUMBERS = 5, 6
Kind = Literal["aligned", "misleading"]
_BUYERS = 0.08


class Shop(NamedTuple):
    """What visitors do.

    Attributes:
        kind: whether clicks lead to purchases.
        clicks: [A, 1 + D] coefficients of the logit of a click, the constant first.
        buys: [A, 1 + D] those of a purchase where clicks mislead.
    """

    kind: Kind
    clicks: Floats
    buys: Floats

    def means(self, x: Floats) -> tuple[Floats, Floats]:
        """Return [n, A] probabilities of a click and of a purchase in contexts `x` ([n, D])."""
        click = expit(with_constant(x) @ self.clicks.T)
        if self.kind == "aligned":
            return click, _BUYERS * click
        return click, expit(with_constant(x) @ self.buys.T)

    def logged(self, n: int, rng: np.random.Generator) -> tuple[Interactions, Floats]:
        """Return n uniform decisions rewarded by purchases, and [n] clicks."""
        x, action = rng.normal(size=(n, NUMBERS)), rng.integers(ACTIONS, size=n)
        row = np.arange(n)
        click, buy = (mean[row, action] for mean in self.means(x))
        clicked = rng.random(n) < click
        chance = rng.random(n)
        bought = clicked & (chance < _BUYERS) if self.kind == "aligned" else chance < buy
        pmf = np.full(n * ACTIONS, 1.0 / ACTIONS)
        chosen = row * ACTIONS + action
        log = Interactions(batch_of(x), chosen, pmf[chosen], bought.astype(np.float64), pmf)
        return log, clicked.astype(np.float64)


def shop(kind: Kind, seed: int) -> Shop:
    """Return the shop of a seed."""
    rng = np.random.default_rng([seed, 1])
    clicks, buys = (0.6 * rng.normal(size=(ACTIONS, 1 + NUMBERS)) for _ in range(2))
    clicks[:, 0] -= 1.2
    buys[:, 0] -= 3.2
    return Shop(kind, clicks, buys)


def batch_of(x: Floats, shown: Ints | None = None) -> Batch:
    """Return decisions between the five actions in contexts `x` ([n, D]), in the order `shown` ([n, A]) if any."""
    n = len(x)
    every = np.tile(np.arange(ACTIONS), n) if shown is None else shown.ravel()
    contexts = FeatureRows(
        [f"x{i}" for i in range(NUMBERS)],
        np.tile(np.arange(NUMBERS, dtype=np.int32), n),
        x.ravel().copy(),
        np.arange(n + 1) * NUMBERS,
        np.arange(n),
    )
    ids = [f"a{i}" for i in range(ACTIONS)]
    actions = FeatureRows(ids, np.arange(ACTIONS, dtype=np.int32), np.ones(ACTIONS), np.arange(ACTIONS + 1), every)
    return Batch(contexts, actions, Texts(ids, every), np.arange(n + 1) * ACTIONS)


def with_constant(x: Floats) -> Floats:
    """Return [n, 1 + D]."""
    return np.concatenate((np.ones((len(x), 1)), x), axis=1)


Device = Literal["none", "margin", "margin_of_all", "bonus", "average"]
DEVICES: tuple[Device, ...] = ("none", "margin", "margin_of_all", "bonus", "average")
AVERAGED = 4
_EXPLORED, _DECAY, _SETTLING = 0.05, 0.8, 4


class Flips(NamedTuple):
    """What nights were like.

    Attributes:
        flips: mean share of contexts whose best action is another than the night before.
        value: mean true reward of the best actions, over that of the optimum.
    """

    flips: float
    value: float


def nights(device: Device, seed: int, *, margin: float, fresh: bool, count: int = 14, rows: int = 2_000) -> Flips:
    """Return what greedy policies do that learn every night, from the fifth night on.

    A ridge regression of each action's rewards learns from the night alone, drawn uniformly (`fresh`), or from the log
    of all nights, whose rows fade by .8 a night, and of which .05 are uniform and the others the policy's.

    Args:
        device: how a policy is kept: ``margin`` as a training does it, which asks some former models
            (`decision.oracles.kept`); ``margin_of_all`` asks every one; ``bonus`` adds `margin` to the rewards of the
            former policy's action before it learns; ``average`` serves the mean of the last four models.
        seed: of the world and of its nights.
        margin: in rewards, which are 0 or 1.
        fresh: see above.
        count: nights.
        rows: decisions of a night.
    """
    rng = np.random.default_rng([seed, 3])
    truth = 0.25 * rng.normal(size=(ACTIONS, 1 + NUMBERS))
    truth[:, 0] = 0.5 + truth[:, 0] / 4.0
    test = with_constant(np.random.default_rng([seed, 4]).normal(size=(4_000, NUMBERS)))
    true = expit(test @ truth.T)
    models, log = list[Floats](), list[tuple[Floats, Ints, Floats]]()
    before: Ints | None = None
    flips, values = list[float](), list[float]()
    for night in range(count):
        x = with_constant(rng.normal(size=(rows, NUMBERS)))
        action = rng.integers(ACTIONS, size=rows)
        if models and not fresh:
            best = _taken(models, x, device, margin)
            action = np.where(rng.random(rows) < _EXPLORED, action, best)
        reward = (rng.random(rows) < expit(x @ truth.T)[np.arange(rows), action]).astype(np.float64)
        log = [] if fresh else log
        log.append((x, action, reward))
        models.append(_learned(log, models, device, margin))
        best = _taken(models, test, device, margin)
        if night >= _SETTLING and before is not None:
            flips.append(float(np.mean(best != before)))
            values.append(float(true[np.arange(len(test)), best].mean() / true.max(axis=1).mean()))
        before = best
    return Flips(float(np.mean(flips)), float(np.mean(values)))


def _learned(log: list[tuple[Floats, Ints, Floats]], models: list[Floats], device: Device, margin: float) -> Floats:
    """Return [A, 1 + D] coefficients."""
    x, action, reward = (np.concatenate(column) for column in zip(*log, strict=True))
    weight = np.repeat(_DECAY ** np.arange(len(log))[::-1], len(log[0][0]))
    if device == "bonus" and models:
        reward = reward + margin * (action == _taken(models, x, device, margin))
    found = np.zeros((ACTIONS, x.shape[1]))
    for each in range(ACTIONS):
        own = action == each
        weighted = x[own] * weight[own, None]
        found[each] = np.linalg.solve(weighted.T @ x[own] + np.eye(x.shape[1]), weighted.T @ reward[own])
    return found


def _taken(models: list[Floats], x: Floats, device: Device, margin: float) -> Ints:
    """Return [n] the actions that the policy of the last of `models` takes."""
    if device in ("none", "bonus"):
        return np.argmax(x @ models[-1].T, axis=1)
    if device == "average":
        return np.argmax(x @ np.mean(models[-AVERAGED:], axis=0).T, axis=1)
    asked = models if device == "margin_of_all" else models[-1 - MOST :]
    offsets = np.arange(len(x) + 1, dtype=np.int64) * ACTIONS
    scores = kept([(x @ model.T).ravel() for model in asked], offsets, margins=[margin] * len(asked))
    return np.argmax(scores.reshape(-1, ACTIONS), axis=1)
