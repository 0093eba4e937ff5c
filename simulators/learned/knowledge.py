"""What learned simulators know of users that none of them has seen, and where they must not be believed.

One step ahead a simulator is judged by its errors, and by whether its own deviations say how large these are. Farther
ahead, by what the logged actions bring in it, beside what they brought: nothing corrects it there, and small errors of
one step add up. Where nobody was shown an action the log says nothing at all; there the members disagree, each going on
in its own way, and that they agree proves nothing (Sim2Rec's executed range and prediction errors).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from decision.batch import Floats
from simulators.learned.embedding import spread_out
from simulators.learned.interventions import memory_after
from simulators.learned.responses import Response
from simulators.learned.trajectories import Counts, Singles, Trajectories

HORIZONS = (1, 2, 5, 10, 20, 40, 60)
"""Decisions ahead at which simulators are asked."""
FEWEST = 30
"""Decisions that showed an action, without which no gap is told."""
USERS = 200
"""Users that actions are held for, at most."""
_HELD = 20
_Z = float(stats.norm.ppf(0.95))


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What one simulator knows, of users that it has not seen.

    Attributes:
        error: root mean square error of the reward, one step ahead.
        explained: share of the variance of rewards that this leaves none of; 0 or less says nothing.
        surprise: mean squared error over the deviation stated; 1 where that is right, more where it is too sure.
        within: share of the responses inside of its 90% interval.
        by_action: [A] error of each action; NaN where it was not shown.
        gap: [A] how far what it says of each action is from what was answered (`gap_of`); NaN where hardly shown.
    """

    error: float
    explained: float
    surprise: float
    within: float
    by_action: Floats
    gap: Floats

    def mean_gap(self, log: Trajectories) -> float:
        """Return the gap over the decisions of `log` whose actions have one; NaN without any."""
        count = np.bincount(log.actions[log.inside], minlength=len(self.gap)) * np.isfinite(self.gap)
        return float(np.nansum(self.gap * count) / count.sum()) if count.any() else float("nan")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ahead:
    """What a simulator says of the logged actions, less what they brought, in reward per decision.

    Attributes:
        steps: decisions ahead.
        off: mean over users.
        low: lower end of its 95% interval.
        high: upper end.
        logged: what they brought.
    """

    steps: int
    off: float
    low: float
    high: float
    logged: float


def known(model: Response, log: Trajectories) -> Known:
    """Return what `model` knows of the users of `log`."""
    memory, shown, response = model.start(len(log)), log.shown, log.responses
    missed, standard = np.zeros(log.rewards.shape), np.zeros(log.rewards.shape)
    for time in range(log.steps):
        mean, sd = model.predict(memory, shown[:, time])
        missed[:, time] = log.scale.reward(mean) - log.rewards[:, time]
        standard[:, time] = (response[:, time] - mean) / sd
        memory = model.advance(memory, shown[:, time], response[:, time])
    inside, count = log.inside, len(log.catalogue)
    square, standard = np.square(missed[inside]), standard[inside]
    times = np.bincount(log.actions[inside], minlength=count)
    total = np.bincount(log.actions[inside], weights=square, minlength=count)
    variance = float(log.rewards[inside].var(dtype=np.float64))
    return Known(
        error=float(np.sqrt(square.mean())),
        explained=1.0 - float(square.mean()) / variance if variance > 0.0 else 0.0,
        surprise=float(np.square(standard).mean()),
        within=float((np.abs(standard) <= _Z).mean()),
        by_action=np.sqrt(np.where(times > 0, total / np.maximum(times, 1), np.nan)),
        gap=gap_of(standard, log.actions[inside], count),
    )


def gap_of(standard: Floats, actions: Counts, count: int) -> Floats:
    """Return [A] the dynamics gap of a simulator by action: mean of -log w over what it would answer itself.

    w = P_real / P_simulated, the density of the answers over that which the simulator states (Niu et al. 2022, "When to
    trust your simulator", H2O). They need classifiers for w. Here both are taken for normal: with answers of mean m and
    variance v, standardised by what was stated, it is (log v + (1 + m^2) / v - 1) / 2, and 0 where all is right.

    Args:
        standard: [m] answers less what was expected, over the deviation stated.
        actions: [m] codes of the actions.
        count: A.
    """
    times = np.bincount(actions, minlength=count)
    some = np.maximum(times, 1)
    mean = np.bincount(actions, weights=standard, minlength=count) / some
    variance = np.bincount(actions, weights=np.square(standard - mean[actions]), minlength=count) / some
    variance = np.maximum(variance, 1e-12)
    return np.where(times >= FEWEST, 0.5 * (np.log(variance) + (1.0 + np.square(mean)) / variance - 1.0), np.nan)


def gap_to_others(means: Singles, sds: Singles, own: Counts) -> Singles:
    """Return [n] the dynamics gap of each user's own simulator to the others, in nats.

    Where nobody was shown an action there is no answer to compare with, but there are the other simulators. With each
    in the place of P_real the mean of -log w, as in `gap_of`, is the divergence KL(own || other) of two normals,
    log(s_o / s) + (s^2 + (m - m_o)^2) / (2 s_o^2) - 1/2. The gap is the mean over the others: 0 where all agree, and
    where there is no other.

    Args:
        means: [k, n] what each simulator expects, as responses.
        sds: [k, n] deviations stated, above 0.
        own: [n] number of each user's own simulator.
    """
    rows = np.arange(len(own))
    mean, variance, others = means[own, rows], np.square(sds[own, rows]), np.square(sds)
    apart = (variance + np.square(mean - means)) / others
    gaps = 0.5 * (np.log(others / variance) + apart - 1.0)
    return (gaps.sum(axis=0) / max(1, len(means) - 1)).astype(np.float32)


def last_error(log: Trajectories) -> float:
    """Return the error of saying, without any model, that the next reward is the user's last one."""
    both = log.inside[:, 1:]
    gap = (log.rewards[:, 1:] - log.rewards[:, :-1])[both]
    return float(np.sqrt(np.square(gap, dtype=np.float64).mean())) if gap.size else float("nan")


def horizons_of(log: Trajectories) -> tuple[int, tuple[int, ...]]:
    """Return how many logged steps are followed first, and the decisions ahead that half of the users went on for."""
    usual = int(np.quantile(log.inside.sum(axis=1), 0.5))
    before = int(min(30, max(1, usual // 4)))
    return before, tuple(steps for steps in HORIZONS if steps <= usual - before) or (1,)


def ahead(model: Response, log: Trajectories, seed: int, before: int, horizons: Sequence[int]) -> list[Ahead]:
    """Return what the logged actions bring in `model` beside what they brought, at each horizon.

    Args:
        model: the simulator.
        log: users; those who went on for so long are looked at.
        seed: of the responses.
        before: steps that go as logged first.
        horizons: decisions ahead, rising.
    """
    users = log.take(np.flatnonzero(log.inside.sum(axis=1) >= before + horizons[-1]))
    rng, shown, logged = np.random.default_rng(seed), users.shown, users.responses
    memory, total = model.start(len(users)), np.zeros(len(users))
    brought = np.cumsum(users.rewards[:, before:], axis=1, dtype=np.float64)
    out: list[Ahead] = []
    for time in range(before + horizons[-1]):
        response = logged[:, time]
        if time >= before:
            response = users.scale.drawn(*model.predict(memory, shown[:, time]), rng)
            total += users.scale.reward(response)
        memory = model.advance(memory, shown[:, time], response)
        steps = time - before + 1
        if steps in horizons:
            gap = (total - brought[:, steps - 1]) / steps
            half = np.inf
            if len(gap) > 1:
                half = stats.t.ppf(0.975, len(gap) - 1) * gap.std(ddof=1) / np.sqrt(len(gap))
            off, truth = float(gap.mean()), float(brought[:, steps - 1].mean()) / steps
            out.append(Ahead(steps=steps, off=off, low=off - float(half), high=off + float(half), logged=truth))
    return out


def disagreement(models: Sequence[Response], log: Trajectories, actions: Counts, before: int, steps: int) -> Floats:
    """Return [a] how far the models are apart on what holding an action for `steps` brings, per decision.

    That is the deviation over models of what users who come from the log are expected to bring, averaged over users.

    Args:
        models: two or more.
        log: of users that they have not seen; 200 of them are tried at most.
        actions: [a] codes of the actions.
        before: steps that go as logged first.
        steps: how long each is held.
    """
    reached = log.take(np.flatnonzero(log.inside[:, before - 1])[:USERS])
    said = [held_in(model, reached, actions, before, steps) for model in models]
    return np.std(said, axis=0).mean(axis=0)


def held_in(model: Response, log: Trajectories, actions: Counts, before: int, steps: int) -> Floats:
    """Return [n, a] what each action, held for `steps`, is expected to bring each user in `model`, per decision.

    Args:
        model: the simulator.
        log: n users who went on for `before` steps, which go as logged.
        actions: [a] codes of the actions.
        before: steps that go as logged first.
        steps: how long each is held.
    """
    n, count = len(log), len(actions)
    shown = np.tile(log.catalogue.features[actions], (n, 1))
    memory, total = np.repeat(memory_after(model, log, before), count, axis=0), np.zeros(n * count)
    for _ in range(steps):
        response, _ = model.predict(memory, shown)
        total += log.scale.reward(response)
        memory = model.advance(memory, shown, response)
    return total.reshape(n, count) / steps


def share_of_best(
    model: Response, log: Trajectories, actions: Counts, before: int, steps: int, earned: Floats
) -> float:
    """Return the share that a policy earns of what each user's best action brings, held, in `model`; NaN below 0.

    What is best in a learned simulator nobody knows; held actions are a lower bound that is cheap, so a policy that
    changes actions well may earn more than 1. Of many actions the 20 farthest apart are tried, with 200 users.

    Args:
        model: the simulator.
        log: n users who went on for `before` steps.
        actions: [a] codes of the actions that the policy may show.
        before: steps that go as logged first.
        steps: how long each action is held, and the policy decided.
        earned: [n] what the policy earned each user there, per decision.
    """
    tried = actions[spread_out(log.catalogue.features[actions], _HELD)]
    few = np.arange(min(USERS, len(log)))
    best = float(held_in(model, log.take(few), tried, before, steps).max(axis=1).mean())
    return float(earned[few].mean()) / best if best > 0.0 else float("nan")
