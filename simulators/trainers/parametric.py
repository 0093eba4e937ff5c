"""Worlds of a known form, their numbers fitted to the log, and a student taught among them (Sim2Rec).

Every simulated user lives in a world of his own, drawn from what the log leaves open of the group's numbers. The
teacher knows each user's numbers and state: an action is worth what it brings, and what the best of a few actions
brings after it, held to the end of the look-ahead. The student sees what is observed, and minimises what its own
distribution loses by that in the states that it comes to itself (AggreVaTe, Ross and Bagnell 2014). Where the context
tells groups apart, each is fitted by itself, and users live in groups between any two of them, whose embeddings the
student sees: so it has been taught in groups like one that no log had.

References:
    Chen et al. 2023, "Sim2Rec", arXiv 2305.04832. Offline domain randomisation, arXiv 2506.10133.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.nn.utils import clip_grad_norm_

from decision.batch import Floats
from decision.errors import FieldError, SupportError
from simulators.learned.embedding import PROBES, elements_of, fit_embedding, spread_out
from simulators.learned.ensembles import Ensemble
from simulators.learned.fitting import Fitted, fitted
from simulators.learned.forms import Form, form_of
from simulators.learned.groups import GroupView
from simulators.learned.trajectories import Counts, Singles, Trajectories
from simulators.sim2rec.network import ContextPolicy
from simulators.sim2rec.student import AVERAGED
from simulators.trainers.contract import Plan, Taught, candidates_of
from simulators.trainers.grouped import STEPS, groups_of

VIRTUAL, _USERS, _WHOLE = 96, 32, 256
"""Groups simulated where the context tells them apart, and users in each; users of a group that is completed."""
_TOLD = 0.1
"""Standard error of a group's numbers up to which its set is made of them, in shares of what is usual."""
AHEAD = 40
"""Steps looked ahead."""
ROUNDS, GROUPED_ROUNDS = 40, 80
"""Rounds of learning; where groups are told apart, there is twice as much to learn, of their embedding too."""
TEMPERATURE = 0.03
"""Of the softmax of values, in deviations of the rewards."""
_ROWS = 16_384
"""Simulated at once: their arrays stay in the cache."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How much a student learns.

    Attributes:
        iterations: rounds of rolling out and learning.
        users: fresh users a round.
        every: steps between values.
        ahead: steps looked ahead.
        held: actions that the rest is held to, the farthest from one another.
        kept: rounds learned from.
        batches: gradient steps a round.
        batch: whole episodes in each.
        rate: learning rate at the start; falls to 3%.
    """

    iterations: int = ROUNDS
    users: int = 96
    every: int = 4
    ahead: int = AHEAD
    held: int = 4
    kept: int = 8
    batches: int = 16
    batch: int = 48
    rate: float = 4e-3


def train(log: Trajectories, simulators: Ensemble, plan: Plan, seed: int) -> Taught:
    """Return the student; see `simulators.trainers.contract.SessionTrainer`.

    Raises:
        FieldError: no form is named, it cannot be had, or the log does not tell its numbers.
    """
    if not plan.form:
        raise FieldError("session.form", wanted="the form of the world, for the method parametric", got=plan.form)
    form, offered = form_of(plan.form), candidates_of(log, plan)
    codes = groups_of(log) if log.grouped_by else [0]
    try:
        fits = [fitted(form, log.take(np.flatnonzero(log.group_codes == code)), seed) for code in codes]
    except SupportError as error:
        raise FieldError("session.form", wanted="a log that tells its numbers", got=str(error)) from error
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:  # a user's own code, met for the first time
        raise FieldError("session.form", wanted="a form that takes the log's actions", got=repr(error)) from error
    noise = float(np.mean([found.noise for found in fits]))
    recipe = Recipe(iterations=plan.count(GROUPED_ROUNDS if log.grouped_by else ROUNDS))
    d = log.catalogue.raw.shape[1]
    if log.grouped_by:
        groups, pools = _between(form, fits, noise, log, np.random.default_rng(seed))
        features = log.catalogue.features[offered]
        embedding = fit_embedding(pools, features[spread_out(features, PROBES)], seed, steps=plan.count(2 * STEPS))
        seen = GroupView(None, d, np.stack([embedding.of(pool) for pool in pools]))
        view = GroupView(None, d, np.stack([embedding.of(pool) for pool in completed(form, fits, codes, log, seed)]))

        def drawn(rng: np.random.Generator, users: int) -> tuple[Floats, Counts]:
            code = rng.integers(0, len(groups), users)
            return groups[code], code
    else:
        view = seen = GroupView(None, d)

        def drawn(rng: np.random.Generator, users: int) -> tuple[Floats, Counts]:
            return fits[0].drawn(rng, users), np.zeros(users, np.int64)

    policy, user_steps = taught_in(Worlds(form, drawn, noise), log, seen, offered, recipe, seed)
    numbers = {"user_steps": float(user_steps), "noise": noise, "fitted_users": float(sum(each.users for each in fits))}
    for code, found in zip(codes, fits, strict=True):
        of = f"_{log.group_names[code]}" if log.grouped_by else ""
        for name, value, error in zip(found.names, found.group, found.errors, strict=True):
            numbers |= {f"fitted_{name}{of}": float(value), f"fitted_{name}{of}_error": float(error)}
    return Taught(policy, view, offered, numbers)


def _between(
    form: Form, fits: Sequence[Fitted], noise: float, log: Trajectories, rng: np.random.Generator
) -> tuple[Floats, list[Singles]]:
    """Return the numbers [g, p] of groups like those fitted and between any two of them, and each one's elements.

    In each, fresh users are shown what users of the log were.
    """
    one, other = rng.integers(0, len(fits), (2, VIRTUAL))
    share = rng.random((VIRTUAL, 1))
    likely = np.stack([each.drawn(rng, VIRTUAL) for each in fits])
    every = np.arange(VIRTUAL)
    groups = share * likely[one, every] + (1.0 - share) * likely[other, every]
    return groups, _elements(form, groups, _USERS, noise, log, rng)


def completed(form: Form, fits: Sequence[Fitted], codes: Sequence[int], log: Trajectories, seed: int) -> list[Singles]:
    """Return each group's elements, in the order of the groups' codes: those of users simulated with its numbers.

    A set of a few users tells who they are, more than of what group. Its numbers tell of the group, so one too small to
    be taught in is fitted as well. A group keeps its own set where the fit fails or is vague, and so do users of none.
    """
    known, sets = dict(zip(codes, fits, strict=True)), elements_of(log)
    usual = np.mean([np.abs(each.group) for each in fits], axis=0)
    rng = np.random.default_rng([seed, 1])
    for code, name in enumerate(log.group_names):
        if not name:
            continue
        found = known.get(code)
        if found is None:
            try:
                found = fitted(form, log.take(np.flatnonzero(log.group_codes == code)), seed)
            except (ArithmeticError, ValueError):  # SupportError is one
                continue
        if (found.errors <= _TOLD * usual).all():
            (sets[code],) = _elements(form, found.group[None], _WHOLE, found.noise, log, rng)
    return sets


def _elements(
    form: Form, groups: Floats, users: int, noise: float, log: Trajectories, rng: np.random.Generator
) -> list[Singles]:
    """Return the elements of so many fresh users of each of `groups` [g, p], shown what users of the log were."""
    shown = log.take(rng.integers(0, len(log), len(groups) * users))
    numbers, traits = np.repeat(groups, users, axis=0), form.traits(rng, len(shown))
    state, raw = form.start(numbers, traits), shown.catalogue.raw[shown.actions].astype(np.float64)
    rewards = np.zeros(shown.actions.shape)
    for time in range(shown.steps):
        mean = form.mean(numbers, traits, state, raw[:, time])
        rewards[:, time] = mean + noise * rng.standard_normal(len(mean))
        state = form.after(numbers, traits, state, raw[:, time], rewards[:, time])
    codes = np.repeat(np.arange(len(groups)), users)
    return elements_of(replace(shown, rewards=rewards.astype(np.float32), groups=codes))


@dataclass(frozen=True, slots=True)
class Worlds:
    """Where students are taught.

    Attributes:
        form: of all of them.
        groups: draws [n, p] numbers of groups, one for each user, and [n] codes by which they are seen.
        noise: deviation of a reward from what is expected.
    """

    form: Form
    groups: Callable[[np.random.Generator, int], tuple[Floats, Counts]]
    noise: float


def taught_in(
    worlds: Worlds, log: Trajectories, view: GroupView, offered: Counts, recipe: Recipe, seed: int
) -> tuple[ContextPolicy, int]:
    """Return a student of one logit per action offered, and the user-steps simulated.

    Args:
        worlds: taught in.
        log: whose catalogue, scale and length of trajectories are those of the episodes.
        view: what is seen.
        offered: codes of the actions.
        recipe: how much is learned.
        seed: of every random choice.
    """
    rng = np.random.default_rng(seed)
    policy, average = (
        ContextPolicy(view.width, len(offered), hidden=48, seed=seed, remembered=view.remembered) for _ in range(2)
    )
    optimizer = torch.optim.Adam(policy.parameters(), lr=recipe.rate)
    rounds: deque[tuple[Singles, Singles]] = deque(maxlen=recipe.kept)
    steps, user_steps = int(log.inside.sum(axis=1).max()), 0
    marks = np.arange(0, steps, recipe.every)
    for iteration in range(recipe.iterations):
        optimizer.param_groups[0]["lr"] = recipe.rate * (1.0 - 0.97 * iteration / recipe.iterations)
        rounds.append(_episodes(worlds, log, view, offered, policy, recipe, steps, rng))
        user_steps += recipe.users * (steps + len(marks) * len(offered) * recipe.held * recipe.ahead)
        for _ in range(recipe.batches):
            inputs, lost = rounds[int(rng.integers(len(rounds)))]
            rows = rng.integers(0, len(inputs), recipe.batch)
            logits, _ = policy(torch.from_numpy(inputs[rows]))
            likely, cost = torch.log_softmax(logits[:, marks], dim=-1), torch.from_numpy(lost[rows])
            wanted = torch.softmax(-cost / TEMPERATURE, dim=-1)
            loss = -(cost.mean(dim=-1) * (wanted * likely).sum(dim=-1)).mean()
            optimizer.zero_grad()
            loss.backward()
            clip_grad_norm_(policy.parameters(), 1.0)
            optimizer.step()
            with torch.no_grad():
                for slow, new in zip(average.parameters(), policy.parameters(), strict=True):
                    slow.lerp_(new, 1.0 - AVERAGED)
    return average, user_steps


def _episodes(
    worlds: Worlds,
    log: Trajectories,
    view: GroupView,
    offered: Counts,
    policy: ContextPolicy,
    recipe: Recipe,
    steps: int,
    rng: np.random.Generator,
) -> tuple[Singles, Singles]:
    """Return [n, T, f] what a student sees along its way and [n, marks, A] what each action loses, per usual reward."""
    form, n, features, raw = worlds.form, recipe.users, log.catalogue.features, log.catalogue.raw.astype(np.float64)
    (group, codes), traits = worlds.groups(rng, n), form.traits(rng, n)
    state, memory = form.start(group, traits), policy.start(n)
    inputs, states = np.empty((n, steps, view.width), np.float32), []
    shown, response = np.zeros((n, features.shape[1]), np.float32), np.zeros(n, np.float32)
    for time in range(steps):
        inputs[:, time] = view.inputs(response, shown, codes, first=time == 0)
        if time % recipe.every == 0:
            states.append(state)
        with torch.no_grad():
            logits, memory = policy.step(torch.from_numpy(inputs[:, time]), memory)
        code = offered[(logits.numpy() + rng.gumbel(size=logits.shape)).argmax(axis=1)]
        reward = form.mean(group, traits, state, raw[code]) + worlds.noise * rng.standard_normal(n)
        state = form.after(group, traits, state, raw[code], reward)
        shown, response = features[code], log.scale.response(reward)
    at, marks = np.stack(states, axis=1), len(states)
    rest = raw[offered[spread_out(features[offered], recipe.held)]]
    worth = values(
        form,
        np.repeat(group, marks, axis=0),
        np.repeat(traits, marks, axis=0),
        at.reshape(n * marks, -1),
        raw[offered],
        rest,
        recipe.ahead,
    )
    lost = worth.max(axis=1, keepdims=True) - worth
    usual = float(log.rewards[log.inside].std()) or 1.0
    return inputs, (lost / usual).reshape(n, marks, -1).astype(np.float32)


def values(
    form: Form, group: Floats, traits: Floats, state: Floats, actions: Floats, rest: Floats, ahead: int
) -> Floats:
    """Return [m, A] what each action brings in each state, and then the best of the rest, held.

    Args:
        form: of the world.
        group: [m, p] its numbers, for each state.
        traits: [m, k] the user's.
        state: [m, s].
        actions: [A, d] features of those valued.
        rest: [K, d] of those that one of is held.
        ahead: steps that it is held.
    """
    count, width = len(actions), len(rest)
    chunk = max(1, _ROWS // (count * width))
    out = np.empty((len(state), count))
    for begin in range(0, len(state), chunk):
        rows = slice(begin, begin + chunk)
        m = len(state[rows])
        groups, own = (np.repeat(each[rows], count, axis=0) for each in (group, traits))
        shown = np.tile(actions, (m, 1))
        now = np.repeat(state[rows], count, axis=0)
        first = form.mean(groups, own, now, shown)
        now = form.after(groups, own, now, shown, first)
        groups, own, now = (np.repeat(each, width, axis=0) for each in (groups, own, now))
        held = np.tile(rest, (m * count, 1))
        later = np.zeros(len(held))
        for _ in range(ahead):
            mean = form.mean(groups, own, now, held)
            later += mean
            now = form.after(groups, own, now, held, mean)
        out[rows] = (first + later.reshape(-1, width).max(axis=1)).reshape(m, count)
    return out
