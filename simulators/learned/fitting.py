"""A form's numbers, fitted to a log: those of the group by least squares, whatever each user's are.

First each user alone, by differential evolution (Storn and Price 1997) over the group's numbers and his own; then all
together from the median of what was found, by Levenberg and Marquardt's steps, in which every user's numbers are
eliminated. A user's numbers are held by their spread over fresh users, as by a prior. What is uncertain of the group's
numbers is the sandwich of the users' own slopes (Huber 1967), so it is right where the noise is not the same for all.

References:
    Offline domain randomisation, arXiv 2506.10133.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from decision.batch import Floats
from decision.errors import FieldError, SupportError
from simulators.learned.forms import Form
from simulators.learned.trajectories import Trajectories

USERS = 64
_POPULATION, _GENERATIONS, _STEPS = 100, 40, 50
_STEP = 1e-4
"""Of a numerical slope, in shares of a number's range."""
_FAR = 4.0
"""Users whose misfit is so many times the median one's have not been understood, and are left out."""


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """What a log says of a group.

    Attributes:
        names: of the group's numbers.
        group: [p] the likeliest.
        covariance: [p, p] of their error.
        low: [p] least values.
        high: [p] greatest values.
        noise: deviation of a reward from what is expected.
        users: fitted to.
    """

    names: tuple[str, ...]
    group: Floats
    covariance: Floats
    low: Floats
    high: Floats
    noise: float
    users: int

    def drawn(self, rng: np.random.Generator, count: int) -> Floats:
        """Return [n, p] numbers of groups that the log may be of."""
        values, vectors = np.linalg.eigh(self.covariance)
        root = vectors * np.sqrt(np.maximum(values, 0.0))
        return np.clip(self.group + rng.standard_normal((count, len(self.group))) @ root.T, self.low, self.high)

    @property
    def errors(self) -> Floats:
        """[p] standard errors."""
        return np.sqrt(np.diag(self.covariance))


def fitted(form: Form, log: Trajectories, seed: int, *, users: int = USERS) -> Fitted:
    """Return the group's numbers that explain `log` best.

    Args:
        form: of the world.
        log: of users of one group.
        seed: of the users taken and of the search.
        users: taken at most, of those who went on longer than half of them did.

    Raises:
        FieldError: the form does not take the log's actions, or says what is no number.
        SupportError: there are fewer users or steps than numbers.
    """
    rng, names = np.random.default_rng(seed), tuple(form.parameters)
    lengths = log.inside.sum(axis=1)
    long = np.flatnonzero(lengths >= np.quantile(lengths, 0.5))
    log = log.take(np.sort(rng.permutation(long)[:users]))
    unit = (float(np.abs(log.rewards[log.inside]).mean()) or 1.0) if form.scales else 1.0
    low, high = (np.array([form.parameters[name][end] for name in names]) * unit for end in (0, 1))
    fresh = form.traits(rng, 2_000)
    prior = _Prior(fresh.min(axis=0), fresh.max(axis=0), fresh.mean(axis=0), fresh.std(axis=0) + 1e-12)
    p, k = len(names), fresh.shape[1]
    if len(log) <= p or log.inside.sum() <= p + k * len(log):
        raise SupportError(f"{len(log)} users with {int(log.inside.sum())} steps do not tell {p} and {k} numbers each")
    world = _World(form, log)
    least, most = np.concatenate([low, prior.low]), np.concatenate([high, prior.high])
    found = _evolved(world, least, most, p, prior, rng)
    group = np.median(found[:, :p], axis=0)
    alone = _evolved(world, np.concatenate([group, prior.low]), np.concatenate([group, prior.high]), p, prior, rng)
    return _together(world, group, alone[:, p:], low, high, prior, names)


@dataclass(frozen=True, slots=True, eq=False)
class _Prior:
    low: Floats
    high: Floats
    mean: Floats
    sd: Floats


class _World:
    """The log's own actions and rewards, gone through by a form with whatever numbers."""

    def __init__(self, form: Form, log: Trajectories) -> None:
        self.form, self.shown = form, log.catalogue.raw[log.actions].astype(np.float64)
        self.rewards, self.inside = log.rewards.astype(np.float64), log.inside
        self.steps = int(log.inside.sum(axis=1).max())

    def __len__(self) -> int:
        return len(self.rewards)

    def residuals(self, group: Floats, traits: Floats) -> Floats:
        """Return [n, c, T] what c tries per user ([n, c, p], [n, c, k]) leave unexplained; 0 beyond the end."""
        n, tries = group.shape[:2]
        groups, own = group.reshape(n * tries, -1), traits.reshape(n * tries, -1)
        state, out = self.form.start(groups, own), np.zeros((n, tries, self.rewards.shape[1]))
        for time in range(self.steps):
            shown, reward = np.repeat(self.shown[:, time], tries, axis=0), np.repeat(self.rewards[:, time], tries)
            mean = self.form.mean(groups, own, state, shown)
            out[:, :, time] = (mean - reward).reshape(n, tries) * self.inside[:, time, None]
            state = self.form.after(groups, own, state, shown, reward)
        if not np.isfinite(out).all():
            raise FieldError("session.form", wanted="finite rewards within the bounds of its numbers", got="others")
        return out


def _evolved(world: _World, low: Floats, high: Floats, p: int, prior: _Prior, rng: np.random.Generator) -> Floats:
    """Return [n, p + k] what explains each user best, within [low, high]."""
    n, q = len(world), len(low)
    every = np.arange(n)[:, None]
    held = rng.uniform(low, high, (n, _POPULATION, q))

    def misfit(tried: Floats) -> Floats:
        return np.square(world.residuals(tried[..., :p], tried[..., p:])).sum(axis=2)

    worst = misfit(held)
    for _ in range(_GENERATIONS):
        best = np.argsort(worst, axis=1)[:, : _POPULATION // 5]
        one = held[every, best[every, rng.integers(0, best.shape[1], (n, _POPULATION))]]
        left, right = (held[every, rng.integers(0, _POPULATION, (n, _POPULATION))] for _ in range(2))
        strength = rng.uniform(0.3, 0.9, (n, _POPULATION, 1))
        tried = np.clip(held + strength * (one - held) + strength * (left - right), low, high)
        tried = np.where(rng.random(tried.shape) < 0.9, tried, held)
        after = misfit(tried)
        better = after < worst
        held[better], worst[better] = tried[better], after[better]
    return held[np.arange(n), worst.argmin(axis=1)]


def _together(
    world: _World, group: Floats, traits: Floats, low: Floats, high: Floats, prior: _Prior, names: tuple[str, ...]
) -> Fitted:
    n, p, k = len(world), len(group), traits.shape[1]
    steps = np.concatenate([(high - low), (prior.high - prior.low)]) * _STEP
    counts = world.inside.sum(axis=1)

    def left_over(group: Floats, traits: Floats) -> Floats:
        return world.residuals(np.tile(group, (n, 1, 1)), traits[:, None])[:, 0]

    residual = left_over(group, traits)
    rms = np.sqrt(np.square(residual).sum(axis=1) / counts)
    used = rms <= _FAR * max(float(np.median(rms)), 1e-300)
    damping = 1e-2
    variance = _variance(residual[used], counts[used], p, k)
    cost = _cost(residual, traits, prior, variance, used)
    for _ in range(_STEPS):
        slopes = _slopes(world, group, traits, residual, steps)
        a, b, d, on_group, on_traits = _normal(slopes, residual, traits, prior, variance, p)
        d = d + damping * np.eye(k) * np.maximum(d, 1e-300)
        inner = np.linalg.solve(d, np.concatenate([b.transpose(0, 2, 1), on_traits[..., None]], axis=2))
        schur = (a - b @ inner[..., :p])[used].sum(axis=0)
        slope = (on_group - (b @ inner[..., p:])[..., 0])[used].sum(axis=0)
        schur = schur + damping * np.diag(np.maximum(np.diag(schur), 1e-300))
        move = -np.linalg.lstsq(schur, slope, rcond=None)[0]
        moves = -(inner[..., p] + inner[..., :p] @ move)
        new_group = np.clip(group + move, low, high)
        new_traits = np.clip(traits + moves, prior.low, prior.high)
        new_residual = left_over(new_group, new_traits)
        new_cost = _cost(new_residual, new_traits, prior, variance, used)
        if new_cost < cost:
            done = cost - new_cost < 1e-9 * abs(cost)
            group, traits, residual, damping = new_group, new_traits, new_residual, damping / 5.0
            variance = _variance(residual[used], counts[used], p, k)
            cost = _cost(residual, traits, prior, variance, used)
            if done:
                break
        else:
            damping *= 8.0
    slopes = _slopes(world, group, traits, residual, steps)
    a, b, d, on_group, on_traits = _normal(slopes, residual, traits, prior, variance, p)
    inner = np.linalg.solve(d, np.concatenate([b.transpose(0, 2, 1), on_traits[..., None]], axis=2))
    schur = (a - b @ inner[..., :p])[used].sum(axis=0)
    scores = (on_group - (b @ inner[..., p:])[..., 0])[used]
    bread = np.linalg.pinv(schur)
    count = int(used.sum())
    covariance = bread @ (scores.T @ scores) @ bread * count / max(count - p, 1)
    return Fitted(names, group, covariance, low, high, float(np.sqrt(variance)), count)


def _slopes(world: _World, group: Floats, traits: Floats, residual: Floats, steps: Floats) -> Floats:
    """Return [n, q, T] how each number moves what is left over."""
    n, p, q = len(world), len(group), len(steps)
    both = np.concatenate([np.tile(group, (n, 1)), traits], axis=1)
    moved = both[:, None, :] + np.diag(steps)
    return (world.residuals(moved[..., :p], moved[..., p:]) - residual[:, None]) / steps[:q, None]


def _normal(
    slopes: Floats, residual: Floats, traits: Floats, prior: _Prior, variance: float, p: int
) -> tuple[Floats, Floats, Floats, Floats, Floats]:
    """Return the blocks of the normal equations per user and their right sides, the prior's part among the traits'."""
    of_group, of_traits = slopes[:, :p], slopes[:, p:]
    weight = variance / np.square(prior.sd)
    d = of_traits @ of_traits.transpose(0, 2, 1) + np.diag(weight)
    on_traits = (of_traits @ residual[..., None])[..., 0] + weight * (traits - prior.mean)
    a, b = of_group @ of_group.transpose(0, 2, 1), of_group @ of_traits.transpose(0, 2, 1)
    return a, b, d, (of_group @ residual[..., None])[..., 0], on_traits


def _cost(residual: Floats, traits: Floats, prior: _Prior, variance: float, used: Floats) -> float:
    held = variance * np.square((traits - prior.mean) / prior.sd).sum(axis=1)
    return float((np.square(residual).sum(axis=1) + held)[used].sum())


def _variance(residual: Floats, counts: Floats, p: int, k: int) -> float:
    free = max(float(counts.sum()) - p - k * len(counts), 1.0)
    return max(float(np.square(residual).sum()) / free, 1e-300)
