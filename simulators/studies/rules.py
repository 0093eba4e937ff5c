"""Exploration rules against each other, retrained night after night, in worlds whose rewards have nothing in common.

Generation 0 decides uniformly; each later one is served by the model that ships, trained on the logs so far, under the
rule in question. Payments are `simulators.environments.payments`; clicks and revenue `simulators.environments.offers`.
Values are exact, 0 uniform and 1 the best policy, as in `simulators.studies.regression_oracle`.

Rows that meet in context and drawn action are handed to the model as one, with their mean reward and the sum of their
weights: its loss is the same, and a night of eight thousand visitors is a few hundred rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace as with_weight
from typing import Any, NamedTuple, Protocol

import numpy as np
from msgspec.structs import replace

from decision.batch import Batch, Floats, Interactions, Ints
from decision.errors import FieldError
from decision.exploration.greedy import greedy
from decision.exploration.rule import Exploration
from decision.exploration.schedule import scheduled
from decision.exploration.sigma import Spread, predicted_of_drawn
from decision.options import SHIPPED, DataRules
from decision.oracles.factory import new_oracle
from decision.oracles.kind import OracleSettings
from decision.policy import OraclePolicy, UniformPolicy
from decision.protocols import Oracle
from decision.ragged import group_max, group_min, group_sum
from simulators.environments.offers import CONTEXTS, Pays, offers_world
from simulators.environments.payments import normalised, payments_world
from simulators.studies.regression_oracle import HOLDOUT, Trace, draw, joined, with_holdout

WORLDS = {"payments": None, "clicks": 0.005, "revenue": 0.03}
"""Worlds by name, with the rate that is taken when none is asked for; payments have one of their own."""
GENERATIONS = 8


class Night(NamedTuple):
    """What may happen in a generation: d different decisions.

    Attributes:
        batch: the decisions.
        share: [d] of the visitors.
        mean: [m] true expected reward of every action, flat.
    """

    batch: Batch
    share: Floats
    mean: Floats


class World(Protocol):
    """Where decisions come from."""

    high: float

    def night(self, n: int, rng: np.random.Generator) -> Night:
        """Return what may happen to n visitors."""
        ...

    def rewards(self, night: Night, chosen: Ints, rng: np.random.Generator) -> Floats:
        """Return [n] rewards of the actions at the flat rows `chosen` ([n])."""
        ...


class _Payments:
    high = 1.0

    def __init__(self, seed: int) -> None:
        self._world = payments_world(seed=seed)

    def night(self, n: int, rng: np.random.Generator) -> Night:
        payments = self._world.draw(n, rng)
        mean = self._world.approval(payments)[payments.available]
        return Night(self._world.batch(payments), np.full(n, 1.0 / n), mean)

    def rewards(self, night: Night, chosen: Ints, rng: np.random.Generator) -> Floats:
        return (rng.random(chosen.size) < night.mean[chosen]).astype(np.float64)


class _Offers:
    def __init__(self, pays: Pays, rate: float, seed: int) -> None:
        self._world = offers_world(pays, rate=rate, seed=seed)
        self.high = self._world.high
        every = np.arange(CONTEXTS, dtype=np.int64)
        self._night = Night(self._world.batch(every), self._world.share, self._world.mean.ravel())

    def night(self, n: int, rng: np.random.Generator) -> Night:
        return self._night

    def rewards(self, night: Night, chosen: Ints, rng: np.random.Generator) -> Floats:
        context, offer = np.divmod(chosen, self._world.mean.shape[1])
        return self._world.rewards(context, offer, rng)


class Task(NamedTuple):
    """One run: the world, its rate (None for payments), the rule by name, and how much is run."""

    world: str
    rate: float | None
    name: str
    seed: int
    size: int


def _rule(**numbers: Any) -> Exploration:
    return Exploration(**numbers)


FIXED = {f"fixed_gamma_{gamma:g}": _rule(kind="squarecb", gamma=gamma) for gamma in (300.0, 1e3, 3e3, 1e4, 3e4)}
EPSILON = {f"epsilon_greedy_{share:g}": _rule(kind="epsilon_greedy", epsilon=share) for share in (0.02, 0.05, 0.1)}
FASTCB = {f"fastcb_{gamma:g}": _rule(kind="fastcb", gamma=gamma) for gamma in (300.0, 3e3, 3e4)}
RULES = {
    "default": _rule(),
    "without_sigma": _rule(),
    **FIXED,
    **EPSILON,
    "thompson": _rule(kind="thompson"),
    **FASTCB,
}
"""Rules by name; all under the floor that ships but ``without_sigma``, which is what shipped before, floor included."""
VW = "vw_squarecb"
TUNED = {"fixed_gamma": list(FIXED), "epsilon_greedy": list(EPSILON), "fastcb": list(FASTCB)}
"""Methods whose number is chosen after the fact, which favours them, and what it is chosen among."""
QUICK = ("default", "without_sigma", "fixed_gamma_3000", "fixed_gamma_10000", "epsilon_greedy_0.05", "fastcb_3000")


def world_of(task: Task) -> World:
    """Return the world of a run.

    Raises:
        FieldError: there is no such world, or the rate is none of its.
    """
    if task.world not in WORLDS:
        raise FieldError.choice("world", list(WORLDS), task.world)
    if task.world == "payments":
        if task.rate is not None:
            raise FieldError("rate", wanted="a world of 'clicks' or 'revenue'", got=task.rate)
        return _Payments(task.seed)
    rate = WORLDS[task.world] if task.rate is None else task.rate
    return _Offers("clicks" if task.world == "clicks" else "revenue", rate or 0.0, task.seed)


def tasks(world: str, rate: float | None, seeds: Sequence[int], size: int, *, quick: bool) -> list[Task]:
    """Return every run of the comparison in one world."""
    names = [*QUICK, VW] if quick else [*RULES, VW]
    return [Task(world, rate, name, seed, size) for seed in seeds for name in names]


def run(task: Task) -> Trace:
    """Run one rule in one world."""
    world = world_of(task)
    rng, drawn = np.random.default_rng([task.seed, 81]), with_holdout(task.size)
    learner = _Vw(task.seed) if task.name == VW else _Shipped(RULES[task.name], world, task)
    trace = Trace([], [], [], [], [], [])
    served: Callable[[Batch], Floats] = UniformPolicy().pmf
    for generation in range(GENERATIONS):
        night = world.night(drawn, rng)
        pmf = served(night.batch)
        trace.online.append(_value(pmf, night))
        visit = rng.choice(night.share.size, size=drawn, p=night.share)
        chosen = draw(pmf, night.batch.offsets, rng, visit)
        reward = world.rewards(night, chosen, rng)
        trace.positive.append(float(np.mean(reward > 0)))
        out = rng.random(drawn) < HOLDOUT
        seen, unseen = (_Visits(visit[rows], chosen[rows], reward[rows]) for rows in (~out, out))
        served = learner.learn(night, pmf, seen, unseen, generation)
        after = world.night(4_000, rng)
        trace.greedy.append(_value(learner.greedy(after.batch), after))
    return trace


class _Visits(NamedTuple):
    """Visits of a night: [r] their rows of the night, the flat rows drawn, and what was paid."""

    visit: Ints
    chosen: Ints
    reward: Floats


class _Rows(NamedTuple):
    """Visits that met: each row is all that drew one action in one context.

    Attributes:
        rows: with mean rewards and how many visits each is.
        place: [r] the row of each visit.
        reward: [r] of each visit.
    """

    rows: Interactions
    place: Ints
    reward: Floats


class _Shipped:
    """The model and the rules on rows that ship, under one exploration rule."""

    def __init__(self, rule: Exploration, world: World, task: Task) -> None:
        self._rule, self._high, self._task = replace(rule, high=world.high), world.high, task
        self._rules = DataRules(generation_rows=1)
        self._seen: list[_Rows] = []
        self._unseen: list[_Rows] = []
        self._uniform: list[float] = []

    def learn(
        self, night: Night, pmf: Floats, seen: _Visits, unseen: _Visits, generation: int
    ) -> Callable[[Batch], Floats]:
        """Learn from all nights so far, but for what is held out, and return what is served next."""
        self._seen.append(_met(night.batch, pmf, seen))
        self._unseen.append(_met(night.batch, pmf, unseen))
        offsets = night.batch.offsets
        self._uniform.append(float((np.diff(offsets) * group_min(pmf, offsets))[seen.visit].sum()))
        fade = np.asarray(self._rules.decay ** np.arange(generation, -1, -1), dtype=np.float64)
        oracle = new_oracle(OracleSettings(seed=self._task.seed * 100 + generation, high=self._high))
        oracle.fit(_faded(self._seen, fade))
        self._oracle = oracle
        return OraclePolicy(oracle, self._served(oracle, fade)).pmf

    def greedy(self, batch: Batch) -> Floats:
        """Return [m] the choice of the newest model."""
        return greedy(self._oracle.predict(batch), batch.offsets)

    def _served(self, oracle: Oracle, fade: Floats) -> Exploration:
        n = float(sum(f * night.reward.size for f, night in zip(fade, self._seen, strict=True)))
        if self._task.name == "without_sigma":
            return replace(self._rule, rows=n)
        spread = Spread(0.0, self._high)
        for f, night in zip(fade, self._seen, strict=True):
            spread.add(night.reward, np.full(night.reward.size, f))
        expected = predicted_of_drawn(oracle.predict, _faded(self._unseen, fade))
        starts = np.cumsum([0, *[len(night.rows) for night in self._unseen]])
        predicted = [expected[s:][night.place] for s, night in zip(starts, self._unseen, strict=False)]
        reward = [night.reward for night in self._unseen]
        weight = [np.full(night.reward.size, f) for f, night in zip(fade, self._unseen, strict=True)]
        sigma = spread.sigma(*(np.concatenate(column) for column in (reward, predicted, weight)))
        uniform = float(sum(f * held for f, held in zip(fade, self._uniform, strict=True)))
        least, wanted = SHIPPED.floor_minimum, SHIPPED.floor_rows
        if self._rule.kind == "epsilon_greedy":
            least = wanted = 0.0  # its share is its floor
        return scheduled(self._rule, rows=n, uniform_rows=uniform, sigma=sigma, least=least, wanted=wanted)


def _met(batch: Batch, pmf: Floats, visits: _Visits) -> _Rows:
    """Return what was drawn and paid in the decisions of `batch`, [m] by `pmf`."""
    found, place, count = np.unique(visits.chosen, return_inverse=True, return_counts=True)
    mean = np.bincount(place, weights=visits.reward) / count
    decision = np.searchsorted(batch.offsets, found, side="right") - 1
    taken = batch.take(decision)
    flat = found - batch.offsets[decision] + taken.offsets[:-1]
    full = np.ones(len(taken.actions))
    rows = Interactions(taken, flat, pmf[found], mean, full, count.astype(np.float64))
    return _Rows(rows, place, visits.reward)


def _faded(nights: Sequence[_Rows], fade: Floats) -> Interactions:
    """Return the rows of all nights, each night's weights times its `fade` ([nights])."""
    weight = np.concatenate([f * night.rows.weights for f, night in zip(fade, nights, strict=True)])
    return with_weight(joined([night.rows for night in nights]), weight=weight)


class _Vw:
    """VW's own ``--squarecb`` with its defaults, which never forgets: event by event after each night."""

    def __init__(self, seed: int) -> None:
        from vowpalwabbit import Workspace

        self._vw = Workspace(f"--quiet --cb_explore_adf --squarecb -q CA -q AA -b 20 --random_seed {seed + 1}")
        self._largest = 0.0

    def learn(
        self, night: Night, pmf: Floats, seen: _Visits, unseen: _Visits, generation: int
    ) -> Callable[[Batch], Floats]:
        offsets, texts = night.batch.offsets, _texts(night.batch)
        self._largest = max(self._largest, float(seen.reward.max()))
        parsed: dict[tuple[int, float], Any] = {}  # reading a text costs ten times what learning from it does
        for visit, flat, paid in zip(*(column.tolist() for column in seen), strict=True):
            if (flat, paid) not in parsed:
                shared, *lines = texts[visit]
                at = flat - int(offsets[visit])
                lines[at] = f"0:{-paid / (self._largest or 1.0):.6g}:{pmf[flat]:.6g} {lines[at]}"
                parsed[flat, paid] = self._vw.parse("\n".join([shared, *lines]))
            self._vw.learn(parsed[flat, paid])
        for examples in parsed.values():
            self._vw.finish_example(examples)
        return self._pmf

    def greedy(self, batch: Batch) -> Floats:
        """Return [m] the choice of the present model: the most probable action."""
        return greedy(self._pmf(batch), batch.offsets)

    def _pmf(self, batch: Batch) -> Floats:
        found = np.concatenate(
            [np.asarray(self._vw.predict("\n".join(lines)), dtype=np.float64) for lines in _texts(batch)]
        )
        return found / np.repeat(group_sum(found, batch.offsets), np.diff(batch.offsets))


def _texts(batch: Batch) -> list[list[str]]:
    """Return VW's lines of every decision."""
    out: list[list[str]] = []
    actions = [_line("|A", row) for row in batch.actions]
    for row in range(len(batch)):
        start, stop = int(batch.offsets[row]), int(batch.offsets[row + 1])
        out.append([_line("shared |C", batch.contexts[row]), *actions[start:stop]])
    return out


def _line(head: str, row: dict[str, float]) -> str:
    return " ".join([head, *[f"{name}:{value:.6g}" for name, value in row.items()]])


def _value(pmf: Floats, night: Night) -> float:
    offsets, mean = night.batch.offsets, night.mean
    uniform = float(night.share @ (group_sum(mean, offsets) / np.diff(offsets)))
    optimum = float(night.share @ group_max(mean, offsets))
    return normalised(float(night.share @ group_sum(pmf * mean, offsets)), uniform=uniform, optimum=optimum)
