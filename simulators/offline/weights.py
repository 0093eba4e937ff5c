"""Which logged trajectories a clone learns from: those of the versions that did well.

A trajectory's return is mostly the person's: nine tenths of its variance in long-term satisfaction. A sampler by
returns therefore clones luck. The log knows who drew, and the mean return of a version says what the version is worth.
After Hong et al. 2023 (harness-offline-rl), whose advantage-weighted sampler is `aw` here at a stated effective number
of trajectories; their temperature depends on the two extreme trajectories and leaves two or three of four hundred.

Weights steer whose decisions are imitated. No critic and no estimate of a value knows them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
from scipy.sparse.csgraph import connected_components

from decision.batch import Floats
from decision.errors import FieldError
from simulators.learned.trajectories import Trajectories

Kind = Literal["uniform", "pw", "aw"]

FEWEST = 40.0
"""Effective trajectories that a sampler leaves, at least; a tenth of them where that is more."""
TRUSTED = 0.3
"""Share of the variance of returns that users explain, above which returns tell more of luck than of a policy."""
_SHRUNK = 20.0
"""Trajectories' worth of the mean that a version's own mean is drawn towards."""


def weights_of(log: Trajectories, kind: Kind, *, effective: float | None = None) -> Floats:
    """Return [n] probabilities of drawing each trajectory; they sum to 1 and know no unit of the rewards.

    Args:
        log: the trajectories.
        kind: ``uniform``; ``pw`` by what the version that drew returned per step beyond others on the same days;
            ``aw`` by the return beyond what the user's first response lets expect.
        effective: effective number of trajectories, 1 / sum of squares; None for the greater of 40 and a tenth.

    Raises:
        FieldError: `kind` is none of these, or the log does not know its versions.
    """
    n = len(log)
    if kind == "uniform":
        return np.full(n, 1.0 / n)
    if kind not in ("pw", "aw"):
        raise FieldError.choice("weights", ["uniform", "pw", "aw"], kind)
    worth = _of_versions(log) if kind == "pw" else _of_advantages(log)
    wanted = min(float(n), max(FEWEST, 0.1 * n) if effective is None else effective)
    spread = worth.max() - worth.min()
    if spread <= 1e-12 * float(np.abs(log.rewards[log.inside]).max()):
        return np.full(n, 1.0 / n)
    scaled = (worth - worth.max()) / spread

    def at(sharpness: float) -> Floats:
        found = np.exp(sharpness * scaled)
        return found / found.sum()

    return at(_greatest(lambda sharpness: 1.0 / float(np.square(at(sharpness)).sum()) >= wanted))


def kind_of(log: Trajectories, asked: Kind) -> Kind:
    """Return the sampler that `log` allows: ``aw`` where policies explain returns, ``pw`` where several drew.

    Where users explain returns, ``aw`` imitates luck, and ``pw`` is returned. One version has no other to be compared
    with, and all its trajectories count alike.
    """
    if asked == "aw" and share_of_users(log) <= TRUSTED:
        return "aw"
    several = log.versions is not None and len(np.unique(drawn_by(log))) > 1
    return "pw" if several and asked != "uniform" else "uniform"


def effective_of(weights: Floats) -> float:
    """Return the effective number of trajectories, 1 over the sum of squares of `weights` ([n], sum 1)."""
    return 1.0 / float(np.square(weights).sum())


def returns_of(log: Trajectories) -> Floats:
    """Return [n] each trajectory's mean reward per step."""
    return (log.rewards * log.inside).sum(axis=1, dtype=np.float64) / log.inside.sum(axis=1)


def drawn_by(log: Trajectories) -> np.ndarray:
    """Return [n] the version that drew most steps of each trajectory.

    Raises:
        FieldError: the log does not know.
    """
    if log.versions is None:
        raise FieldError("log", wanted="versions", got=None)
    counts = np.zeros((len(log), int(log.versions.max()) + 1), np.int64)
    rows = np.broadcast_to(np.arange(len(log))[:, None], log.inside.shape)
    np.add.at(counts, (rows[log.inside], log.versions[log.inside]), 1)
    return counts.argmax(axis=1)


def share_of_users(log: Trajectories) -> float:
    """Return the share of the variance of returns that users' first responses explain, given the first action.

    They precede all treatment, so this is the person and not the policy. Above .3, trajectory weights by returns say
    more of luck than of a policy. Returns are those after the first step, of which the first response is no part.
    """
    rest = np.where(log.inside, log.rewards, np.float32(0.0))[:, 1:].sum(axis=1, dtype=np.float64)
    returns = rest / np.maximum(log.inside[:, 1:].sum(axis=1), 1)
    explained = returns - _expected(log, returns)
    total = float(returns.var())
    return 0.0 if total <= 0.0 else max(0.0, 1.0 - float(explained.var()) / total)


def _of_versions(log: Trajectories) -> Floats:
    """Return [n] what the version that drew is worth, beyond others that drew on the same days.

    Returns are explained by day and version, by least squares. Versions that no chain of common days links cannot be
    told from a good time: each set that is linked is measured from its own mean.
    """
    returns = returns_of(log)
    _, drew, count = np.unique(drawn_by(log), return_inverse=True, return_counts=True)
    _, day = np.unique(np.zeros(len(log)) if log.days is None else log.days, return_inverse=True)
    both = np.zeros((day.max() + 1, len(count)))
    np.add.at(both, (day, drew), 1.0)
    of_day = np.bincount(day, returns) / both.sum(axis=1)
    beyond = np.bincount(drew, returns - of_day[day])
    linked = np.diag(count) - both.T @ (both / both.sum(axis=1, keepdims=True))
    worth = np.linalg.pinv(linked, hermitian=True) @ beyond
    _, part = connected_components(both.T @ both > 0.0, directed=False)
    worth -= (np.bincount(part, worth * count) / np.bincount(part, count))[part]
    return (worth * count / (count + _SHRUNK))[drew]


def _of_advantages(log: Trajectories) -> Floats:
    returns = returns_of(log)
    return returns - _expected(log, returns)


def _expected(log: Trajectories, returns: Floats) -> Floats:
    """Return [n] the least squares prediction of returns by the first action's features and the first response."""
    response = log.responses[:, 0].astype(np.float64)
    features = log.shown[:, 0].astype(np.float64)
    design = np.column_stack([np.ones(len(log)), response, np.square(response), features, response[:, None] * features])
    coefficients, *_ = np.linalg.lstsq(design, returns, rcond=None)
    return design @ coefficients


def _greatest(holds: Callable[[float], bool]) -> float:
    """Return about the greatest number in [0, 1e6] for which `holds`, which is true up to somewhere."""
    low, high = 0.0, 1.0
    while holds(high) and high < 1e6:
        low, high = high, 2.0 * high
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
