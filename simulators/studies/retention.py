"""The study of retention: how much of a user's taste to serve a visit, in groups that are bored sooner or later.

A feed whose ranker knows tastes decides how many of ten positions it gives to them. More is more clicks today, and
boredom, which keeps users away (`simulators.environments.retention`). Groups differ in how many clicks bore; a student
is trained in four of them and deployed unseen in the fifth, which lies between. What counts are a user's clicks within
60 days, however often he comes.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from decision.batch import Floats
from decision.errors import FieldError
from simulators.environments.lts.env import Counts, Singles
from simulators.environments.retention import RetentionEnv, RetentionRules, draw_items
from simulators.sim2rec.network import ContextPolicy
from simulators.sim2rec.sadae import Sadae, fit
from simulators.sim2rec.valued import Pace, Round, taught
from simulators.studies import interval

GROUPS, TARGET = (6, 7, 9, 10), 8
"""Clicks on a topic within five visits that bore, in the groups trained on and in the one deployed to."""
LEVELS = (0, 1, 2, 4, 7, 10)
"""Positions of a slate that go to the user's taste."""
DAYS, AHEAD = 60, 30
"""Days whose clicks count, and those that an action is valued by."""
_LIKED, _OTHER, _EACH = 20, 60, 4
"""Items that a slate's two parts are drawn from; of one topic at most so many are liked: the ranker mixes topics."""
_OFFSET = 0.35
"""Relevance from which on an item attracts: what the ranker likes for a user, he likes."""
_REMEMBERED, _AWAY = 50, 0.2
"""All clicks of five visits count, not the latest ten: then more clicks bore more. And who is bored stays away."""
_LOGGED = 240
"""Users of a group who were logged before a student serves it: by 60, eight clicks may look as nine."""
_ITEMS = draw_items(np.random.default_rng(0), 300, 10)

STUDENTS = ("sim2rec", "without_embedding", "direct", "there")
STILL = ("constant", "constant_there")
ALL = (*STUDENTS, *STILL)


@dataclass(frozen=True, slots=True)
class Size:
    """How much is run.

    Attributes:
        users: a round, over all groups.
        repeats: rollouts that an action is valued by.
        iterations: of every student.
        deployed: users of the fifth group.
        methods: run.
    """

    users: int = 24
    repeats: int = 2
    iterations: int = 20
    deployed: int = 400
    methods: tuple[str, ...] = ALL


QUICK = Size(16, 1, 5, 200, ("sim2rec", "there", "constant"))


@dataclass(frozen=True, slots=True)
class Job:
    """One method with one seed."""

    method: str
    seed: int

    @property
    def name(self) -> str:
        """Unique among a study's jobs."""
        return f"retention-{self.method}-{self.seed}"


def jobs(seeds: Sequence[int], size: Size) -> list[Job]:
    """Return what has to be run."""
    return [Job(method, seed) for seed in seeds for method in size.methods]


class Feed:
    """Users of one group before a feed, visit by visit.

    Attributes:
        env: the world.
        elapsed: [n] days since the start.
        clicks: [n, 10] of the last visit.
        days: [n] since the visit before.
        level: [n] codes of the last visit's level.
    """

    def __init__(self, threshold: int, users: int, seed: int) -> None:
        rules = RetentionRules(threshold=threshold, offset=_OFFSET, remembered=_REMEMBERED, away=_AWAY)
        self.env = RetentionEnv(_ITEMS, users, rules)
        self.seen, _ = self.env.reset(seed=seed)
        score = self.env.taste @ _ITEMS.T
        rank = np.zeros_like(score)
        for topic in range(_ITEMS.shape[1]):
            items = np.flatnonzero(self.env.topic == topic)
            rank[:, items] = np.argsort(np.argsort(-score[:, items], axis=1), axis=1)
        self.liked = np.argsort(-(score - 10.0 * (rank >= _EACH)), axis=1)[:, :_LIKED]
        self.other = np.argsort(score, axis=1)[:, :_OTHER]
        self.elapsed, self.level = np.zeros(users), np.zeros(users, np.int64)

    def take(self, rows: Counts, seed: int) -> Feed:
        """Return copies of the users at `rows`, who go on by a chance of their own."""
        out = object.__new__(Feed)
        out.env = self.env.take(rows, seed)
        for name in ("seen", "liked", "other", "elapsed", "level"):
            setattr(out, name, getattr(self, name)[rows])
        return out

    def visit(self, level: Counts) -> Floats:
        """Serve everyone a level [n] (codes); return [n] clicks, 0 for those whose days are over."""
        rng, n, slate = self.env.np_random, len(level), self.env.rules.slate
        taste = np.take_along_axis(self.liked, rng.random((n, _LIKED)).argsort(axis=1)[:, :slate], axis=1)
        rest = np.take_along_axis(self.other, rng.random((n, _OTHER)).argsort(axis=1)[:, :slate], axis=1)
        shown = np.where(np.arange(slate) < np.array(LEVELS)[level][:, None], taste, rest)
        self.seen, clicks, _, _, told = self.env.step(shown)
        counted = np.where(self.elapsed < DAYS, clicks, 0.0)
        self.elapsed, self.level = self.elapsed + told["days"], level
        return counted

    @property
    def inputs(self) -> Singles:
        """[n, 8] what a policy sees of a user."""
        near = -np.sort(-self.seen[:, :-2], axis=1)[:, :3]
        rest = [np.ones(len(near)), self.seen[:, -2], np.log1p(self.seen[:, -1]) / 3.0]
        rest += [self.level / len(LEVELS), np.minimum(self.elapsed / DAYS, 1.0)]
        return np.concatenate([near, np.stack(rest, axis=1)], axis=1).astype(np.float32)

    @property
    def elements(self) -> Singles:
        """[n, 3] share clicked and days of the last visit, and its level: what a group's set is made of."""
        return self.inputs[:, [4, 5, 6]]


@dataclass(frozen=True, slots=True)
class _View:
    """What a student sees: his user, and the group's set as it was logged before him, at levels drawn at random.

    A set of what he serves himself would tell of him as much as of the group: one that is bored by 9 clicks, served
    seven positions, looks as one bored by 8 that is served four.
    """

    sadae: Sadae | None

    @property
    def width(self) -> int:
        return 8 + (0 if self.sadae is None else self.sadae.latent)

    def told(self, group: int, rng: np.random.Generator) -> Singles:
        """Return [l] what the log of a group says of it; nothing where groups are not embedded."""
        if self.sadae is None:
            return np.zeros(0, np.float32)
        sets = logged(group, rng)
        return np.mean([self.sadae.embed(each, np.zeros(_LOGGED, np.int64))[0] for each in sets], axis=0)

    def inputs(self, feeds: Sequence[Feed], codes: Sequence[Singles]) -> Singles:
        own = [
            np.concatenate([feed.inputs, np.tile(code, (len(feed.level), 1))], axis=1)
            for feed, code in zip(feeds, codes, strict=True)
        ]
        return np.concatenate(own).astype(np.float32)


def logged(group: int, rng: np.random.Generator) -> list[Singles]:
    """Return the sets of a group's visits, from the fifth on, served levels at random."""
    feed, sets = Feed(group, _LOGGED, int(rng.integers(2**31))), []
    for visit in range(24):
        feed.visit(rng.integers(0, len(LEVELS), _LOGGED))
        if visit >= 4:
            sets.append(feed.elements)
    return sets


def run_job(job: Job, size: Size) -> dict[str, Any]:
    """Return the ``clicks`` of the users deployed to, what they earned in the groups trained on, and the visits made.

    Raises:
        FieldError: the method is unknown.
    """
    if job.method not in ALL:
        raise FieldError.choice("method", list(ALL), job.method)
    torch.set_num_threads(1)
    started, seed = time.perf_counter(), job.seed
    groups = {"direct": GROUPS[-1:], "there": (TARGET,), "constant_there": (TARGET,)}.get(job.method, GROUPS)
    if job.method in STILL:
        few = max(10, size.deployed // 4)
        overall = int(np.argmax(np.sum([held(group, seed, users=few) for group in groups], axis=0)))
        feed = deployed(size, seed)
        clicks = np.sum([feed.visit(np.full(len(feed.level), overall)) for _ in range(DAYS)], axis=0)
        return {"clicks": float(clicks.mean()), "seconds": time.perf_counter() - started}
    embedded = job.method in ("sim2rec", "there")
    view = _View(sadae_of(groups, seed) if embedded else None)

    def roll(policy: ContextPolicy, rng: np.random.Generator) -> Round:
        return rolled(policy, view, groups, size, rng)

    policy = taught(view.width, len(LEVELS), roll, Pace(iterations=size.iterations), seed)
    codes = {group: view.told(group, np.random.default_rng([seed, group])) for group in (*groups, TARGET)}
    at_home = [earned(policy, view, Feed(group, 200, 31 * seed + group), codes[group]) for group in groups]
    clicks = earned(policy, view, deployed(size, seed), codes[TARGET])
    few = max(10, size.deployed // 4)
    return {
        "shares": {
            f"bored by {group}": float(one.mean() / held(group, seed, users=few).max())
            for group, one in zip(groups, at_home, strict=True)
        },
        "clicks": float(clicks.mean()),
        "trained": float(np.mean([one.mean() for one in at_home])),
        "seconds": time.perf_counter() - started,
    }


def deployed(size: Size, seed: int) -> Feed:
    """Return the users of the fifth group, the same for every method."""
    return Feed(TARGET, size.deployed, 1000 + seed)


def held(group: int, seed: int, *, users: int) -> Floats:
    """Return [A] the clicks that every level earns in a group when it is held for all days."""
    out = np.empty(len(LEVELS))
    for level in range(len(LEVELS)):
        feed = Feed(group, users, 17 * seed + group)
        out[level] = np.mean(np.sum([feed.visit(np.full(users, level)) for _ in range(DAYS)], axis=0))
    return out


def sadae_of(groups: Sequence[int], seed: int) -> Sadae:
    """Return an autoencoder of visits of a group, trained on random levels."""
    rng = np.random.default_rng(seed)
    sets = [each for group in groups for each in logged(group, rng)]
    stacked = np.stack(sets)

    def draw(rng: np.random.Generator) -> Singles:
        return stacked[rng.integers(0, len(stacked), 8)][:, rng.integers(0, _LOGGED, 40)]

    scale = np.full(3, 0.3, np.float32)
    model = Sadae(np.full(3, 0.3, np.float32), scale, actions=1, latent=3, seed=seed)
    fit(model, draw, seed, steps=200, penalty=1e-2)
    return model


def rolled(
    policy: ContextPolicy,
    view: _View,
    groups: Sequence[int],
    size: Size,
    rng: np.random.Generator,
    *,
    every: int = 5,
) -> Round:
    """Follow the student for 40 visits; every fifth one values each level by holding it for 30 days.

    Levels are drawn from the student, every fourth at random.
    """
    visits, per = 40, max(1, size.users // len(groups))
    feeds = [Feed(group, per, int(rng.integers(2**31))) for group in groups]
    codes = [view.told(group, rng) for group in groups]
    n = per * len(groups)
    inputs = np.zeros((n, visits, view.width), np.float32)
    values, weight = np.zeros((n, visits, len(LEVELS)), np.float32), np.zeros((n, visits), np.float32)
    state, start = policy.start(n), int(rng.integers(every))
    for visit in range(visits):
        inputs[:, visit] = view.inputs(feeds, codes)
        with torch.no_grad():
            logits, state = policy.step(torch.from_numpy(inputs[:, visit]), state)
        if visit % every == start:
            values[:, visit] = np.concatenate([worth(feed, size.repeats, rng) for feed in feeds])
            weight[:, visit] = np.concatenate([feed.elapsed < DAYS for feed in feeds])
        drawn = (logits.numpy() + rng.gumbel(size=logits.shape)).argmax(axis=1)
        drawn = np.where(rng.random(n) < 0.25, rng.integers(0, len(LEVELS), n), drawn)
        for number, feed in enumerate(feeds):
            feed.visit(drawn[number * per : (number + 1) * per])
    return inputs, values, weight


def worth(feed: Feed, repeats: int, rng: np.random.Generator) -> Singles:
    """Return [n, A] the mean clicks within the next days when a level is held."""
    n = len(feed.level)
    rows = np.tile(np.repeat(np.arange(n), len(LEVELS)), repeats)
    level = np.tile(np.arange(len(LEVELS)), n * repeats)
    copies = feed.take(rows, int(rng.integers(2**31)))
    since, total = copies.elapsed.copy(), np.zeros(len(rows))
    for _ in range(AHEAD):
        soon: NDArray[np.bool_] = copies.elapsed - since < AHEAD
        if not soon.any():
            break
        clicks = copies.visit(level)
        total += np.where(soon, clicks, 0.0)
    return total.reshape(repeats, n, len(LEVELS)).mean(axis=0).astype(np.float32)


def earned(policy: ContextPolicy, view: _View, feed: Feed, code: Singles) -> Floats:
    """Return [n] the clicks of a group's users under the policy's best levels, the group being told as `code`."""
    state, total = policy.start(len(feed.level)), np.zeros(len(feed.level))
    for _ in range(DAYS):
        with torch.no_grad():
            logits, state = policy.step(torch.from_numpy(view.inputs([feed], [code])), state)
        total += feed.visit(logits.numpy().argmax(axis=1))
    return total


def summary(size: Size, results: Mapping[str, Mapping[str, Any]], seeds: Sequence[int]) -> dict[str, Any]:
    """Return per method means over seeds with 95% intervals, paired by seed.

    ``ratio_there`` divides by the same student trained in the fifth group, ``over_constant`` by the level that is best
    to hold in the groups trained on.
    """
    out: dict[str, Any] = {}
    for method in size.methods:
        found = [results[Job(method, seed).name] for seed in seeds]
        columns = {"clicks": [one["clicks"] for one in found]}
        for key, other in (("ratio_there", "there"), ("over_constant", "constant")):
            if other in size.methods:
                rivals = [results[Job(other, seed).name]["clicks"] for seed in seeds]
                columns[key] = [one["clicks"] / rival for one, rival in zip(found, rivals, strict=True)]
        if method in STUDENTS:
            columns["trained"] = [one["trained"] for one in found]
        row: dict[str, Any] = {}
        for key, values in columns.items():
            row[key], row[f"{key}_ci"] = float(np.mean(values)), interval.of_mean(values)
        if "shares" in found[0]:
            row["worst"], row["worst_share"] = interval.worst_of([one["shares"] for one in found])
        out[method] = row
    return out
