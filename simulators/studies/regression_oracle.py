"""Retraining on one's own logs: does the next generation forget what the last one chose not to show?

Generation 0 decides uniformly; each later one is served by a policy trained on the logs so far, as the method's rules
say. After Vangara and Egg 2024 (arXiv 2412.00569), who describe the effect on payments; the environment, its numbers
and the cures are ours (`simulators.environments.payments`). Values are exact, on the scale where the uniform policy is
0 and the best one is 1. Beside the decisions that are learned from, a share is held out, as in a loop: the gate judges
by them, and they say how much noise a model leaves.

    online      mean over generations 1, 2, ... of the value of the policy that decided
    last3       mean greedy value of the last three models, on payments of their own time
    drawdown    largest fall of the greedy value from its running maximum
    sign_flips  share of successive changes of the greedy value, after generation 1, that go the other way
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import msgspec
import numpy as np

from decision.batch import Batch, Floats, Interactions, Ints
from decision.exploration.greedy import greedy
from decision.exploration.rule import Exploration
from decision.exploration.schedule import scheduled
from decision.exploration.sigma import predicted_of_drawn
from decision.gate import Reference, Verdict, judge
from decision.generations import Tally, ages, training_weights
from decision.ope.diagnostics.predicted_lift import predicted_lift_of
from decision.ope.estimators.balanced import balanced
from decision.ope.estimators.lift import SWITCH_AT, lift_of, switched_lift_of
from decision.options import SHIPPED, DataRules
from decision.oracles.ensemble import EnsembleOracle
from decision.oracles.factory import load_oracle, new_oracle
from decision.oracles.kind import OracleSettings
from decision.policy import OraclePolicy, UniformPolicy
from decision.protocols import Oracle, Policy
from decision.ragged import group_max, group_sum
from simulators.environments.payments import arrival, normalised, payments_world

GENERATIONS, DRIFTING_GENERATIONS = 8, 10
DRIFT = 0.3
TEST_PAYMENTS = 4_000
HOLDOUT = 0.2
LATE_TOGGLE_AT = 5
MEAN_DELAY = 0.25  # generations
CURED_SEEDS = 4
WORSE, BETTER = 0.05, 0.03  # what the gate must not serve, and what it must not miss, on the normalised scale


def _boosted_trees(seed: int) -> Oracle:
    """Return the learner of the reference runs: LightGBM with 31 leaves, rate .08, 100 rounds."""
    from decision.oracles.gradient_boosting import GradientBoostingOracle, GradientBoostingSettings

    return GradientBoostingOracle(GradientBoostingSettings(rounds=100, learning_rate=0.08, leaves=31, seed=seed))


class Method(NamedTuple):
    """A way to make generations.

    Attributes:
        oracle: seed -> cold reward model.
        kind: its name, by which its files are loaded.
        rules: which rows it learns from.
        exploration: how it is served.
        scheduled: the rule takes noise and floor from the rows, as a loop does; without, only their number.
    """

    oracle: Callable[[int], Oracle]
    kind: str
    rules: DataRules
    exploration: Exploration
    scheduled: bool = False

    def served(self, tally: Tally, model: Oracle, unseen: Interactions) -> Exploration:
        """Return the rule under which a model of the rows in `tally`, and of none in `unseen`, is served."""
        if not self.scheduled:
            return msgspec.structs.replace(self.exploration, rows=tally.effective_rows)
        return scheduled(
            self.exploration,
            rows=tally.effective_rows,
            uniform_rows=tally.uniform_rows,
            sigma=tally.spread.sigma(unseen.reward, predicted_of_drawn(model.predict, unseen), unseen.weights),
            least=SHIPPED.floor_minimum,
            wanted=SHIPPED.floor_rows,
        )


def _shipped(
    kind: Any = "logistic", rules: DataRules | None = None, exploration: Exploration | None = None, **oracle: Any
) -> Method:
    """Return what a loop does by default, with one thing changed."""

    def make(seed: int) -> Oracle:
        return new_oracle(OracleSettings(kind=kind, seed=seed, **oracle))

    return Method(make, kind, rules or DataRules(), exploration or Exploration(), scheduled=True)


def _trees(rules: DataRules, **exploration: Any) -> Method:
    rule: dict[str, Any] = {"kind": "squarecb", "gamma": 1000.0, "floor": 0.0} | exploration
    return Method(_boosted_trees, "lightgbm", rules, Exploration(**rule))


_LAST = DataRules(generation_rows=1, generations=1, decay=1.0)


def _kept(generations: int, **more: Any) -> DataRules:
    return DataRules(generation_rows=1, generations=generations, decay=1.0, **more)


DEFAULT = _shipped()
CURES = {
    "plain": _trees(_LAST),
    "uniform": _trees(_LAST, kind="uniform"),
    "gamma_100": _trees(_LAST, gamma=100.0),
    "gamma_5000": _trees(_LAST, gamma=5000.0),
    "epsilon_greedy": _trees(_LAST, kind="epsilon_greedy", epsilon=0.1),
    "softmax": _trees(_LAST, kind="softmax", inverse_temperature=30.0),
    "fastcb": _trees(_LAST, kind="fastcb", gamma=300.0),
    "importance_clipped": _trees(_kept(1, importance="clipped", clip=20.0)),
    "importance_sqrt": _trees(_kept(1, importance="sqrt", clip=10.0)),
    "floor": _trees(_LAST, floor=0.05),
    "window_3": _trees(_kept(3)),
    "window_5": _trees(_kept(5)),
    "all_data": _trees(_kept(0)),
    "average_3": _trees(_kept(1, average=3)),
    "average_6": _trees(_kept(1, average=6)),
    "warm_start": _trees(_kept(1, warm_start=True)),
    "reservoir": _trees(_kept(1, reservoir=10), floor=0.05),
    "reservoir_average_3": _trees(_kept(1, reservoir=10, average=3), floor=0.05),
    "window_5_average_3": _trees(_kept(5, average=3), floor=0.05),
}
ABLATION = {
    "default": DEFAULT,
    "no_decay": _shipped(rules=DataRules(decay=1.0)),
    "last_generation_only": _shipped(rules=_LAST),
    "no_products": _shipped(interactions=False),
    "trees_for_logistic": DEFAULT._replace(oracle=_boosted_trees, kind="lightgbm"),
    "no_floor": _shipped(exploration=Exploration(floor=0.0)),
    "floor_0.02": _shipped(exploration=Exploration(floor=0.02)),
    "gamma_1000_fixed": _shipped(exploration=Exploration(kind="squarecb", gamma=1000.0)),
    "gamma_3000_fixed": _shipped(exploration=Exploration(kind="squarecb", gamma=3000.0)),
}
ORACLES = {kind: _shipped(kind) for kind in ("logistic", "linear", "vw", "lightgbm", "neural")}
QUICK = ("plain", "window_5_average_3", "default")


class Gate(NamedTuple):
    """The promotion gate's settings, those of a loop by default."""

    alpha: float = 0.05
    share: float = 0.05
    minimum_ess: float = 50.0


class Trace(NamedTuple):
    """What happened in one run, a number per generation, normalised where they are values.

    Attributes:
        online: value of the policy that decided.
        greedy: greedy value of the model trained at the end.
        positive: share of approved payments.
        candidate: value of the policy trained at the end.
        champion: value, at the same time, of the policy it would replace.
        promoted: whether it took over.
    """

    online: list[float]
    greedy: list[float]
    positive: list[float]
    candidate: list[float]
    champion: list[float]
    promoted: list[bool]


class Task(NamedTuple):
    """One run: its group and method's name, and its conditions."""

    group: str
    name: str
    seed: int
    drift: float
    size: int
    generations: int
    late_toggle: bool = False
    delay: float = 0.0
    gate: Gate | None = None


def methods(group: str) -> dict[str, Method]:
    """Return the methods of a group of runs."""
    if group == "oracles":
        return ORACLES
    return CURES | ABLATION


def tasks(seeds: Sequence[int], size: int, *, quick: bool) -> list[Task]:
    """Return every run of the study; the cures run on the first four seeds, what ships on all of them."""
    worlds = ((0.0, GENERATIONS), (DRIFT, DRIFTING_GENERATIONS))
    out: list[Task] = []
    for number, seed in enumerate(seeds):
        first = number < CURED_SEEDS
        for drift, generations in worlds:
            common = (seed, drift, size, generations)
            names = QUICK if quick else [*(CURES if first else ("plain",)), *ABLATION]
            out += [Task("methods", name, *common) for name in names]
            if quick and drift:
                continue
            others = ("linear",) if quick else [kind for kind in ORACLES if kind != "logistic"]
            out += [Task("oracles", name, *common) for name in others if first]
            out += [Task("gate", name, *common, gate=Gate()) for name in ("default", "plain")]
        for name in () if quick or not first else ("default", "plain"):
            out.append(Task("late_toggle", name, seed, 0.0, size, DRIFTING_GENERATIONS, late_toggle=True))
            out.append(Task("delay", name, seed, 0.0, size, GENERATIONS, delay=MEAN_DELAY))
    return out


def run(task: Task) -> Trace:
    """Run one method in one world."""
    method = methods(task.group)[task.name]
    world = payments_world(seed=task.seed, late_toggle_at=LATE_TOGGLE_AT if task.late_toggle else None)
    rng, drift_rng, delay_rng = (np.random.default_rng([task.seed, part]) for part in (77, 78, 80))
    test_rng, held_rng = (np.random.default_rng([task.seed, part]) for part in (79, 76))
    log, drawn = _Log(), with_holdout(task.size)
    trace = Trace([], [], [], [], [], [])
    models: list[Oracle] = []
    champion: Policy = UniformPolicy()
    proven: Policy = champion
    looks: dict[str, list[int]] = {"": [0, 0], "proven_": [0, 0]}
    served: list[Policy] = []
    for generation in range(task.generations):
        served.append(champion)
        payments = world.draw(drawn, rng, generation=generation)
        batch, mean = world.batch(payments), world.approval(payments)[payments.available]
        pmf = champion.pmf(batch)
        chosen = draw(pmf, batch.offsets, rng)
        reward = (rng.random(drawn) < mean[chosen]).astype(np.float64)
        trace.online.append(_value(pmf, mean, batch.offsets))
        trace.positive.append(float(reward.mean()))
        arrived = arrival(generation, drawn, delay_rng, mean_delay=task.delay)
        held = held_rng.random(drawn) < HOLDOUT
        log.add(Interactions(batch, chosen, pmf[chosen], reward, pmf), generation, arrived, held)
        if task.drift:
            world = world.drifted(task.drift, drift_rng)
        seen, weight = _weighed(log, task.size, generation, method.rules, held=False)
        kept = np.flatnonzero(weight > 0)
        oracle = method.oracle(task.seed * 100 + generation)
        if method.rules.warm_start and models:
            oracle = load_oracle(method.kind, models[-1].save())
        oracle.fit(replace(seen.take(kept), weight=weight[kept]))
        models.append(oracle)
        newest = [(method.kind, model) for model in models[-method.rules.average :]]
        model = oracle if len(newest) == 1 else EnsembleOracle(newest)
        tally = Tally()
        tally.add(seen, weight)
        unseen, faded = _weighed(log, task.size, generation, method.rules, held=True)
        candidate = OraclePolicy(model, method.served(tally, model, replace(unseen, weight=faded)))
        test = world.draw(TEST_PAYMENTS, test_rng, generation=generation + 1)
        trial, truth = world.batch(test), world.approval(test)[test.available]
        scores = model.predict(trial)
        trace.greedy.append(_value(greedy(scores, trial.offsets), truth, trial.offsets))
        trace.candidate.append(_value(candidate.pmf_of(scores, trial), truth, trial.offsets))
        trace.champion.append(_value(champion.pmf(trial), truth, trial.offsets))
        verdict = None
        if task.gate is not None:
            verdict = _verdict(candidate, champion, proven, log, served, task.gate, looks)
        promoted = verdict is None or verdict.promote
        trace.promoted.append(promoted)
        if promoted:
            champion, looks[""] = candidate, [0, 0]
        if verdict is not None and verdict.proven:
            proven, looks["proven_"] = candidate, [0, 0]
    return trace


class _Log:
    """The rows so far; copies nothing until they are asked for."""

    def __init__(self) -> None:
        self._parts: list[Interactions] = []
        self._generation: list[Ints] = []
        self._arrived: list[Floats] = []
        self._held: list[Any] = []

    def add(self, rows: Interactions, generation: int, arrived: Floats, held: Any) -> None:
        self._parts.append(rows)
        self._generation.append(np.full(len(rows), generation, dtype=np.int64))
        self._arrived.append(arrived)
        self._held.append(held)

    def rows(self, now: int, *, held: bool) -> tuple[Interactions, Ints]:
        """Return the rows that are mature at the end of generation `now`, held out or not, and their ages."""
        parts: list[Interactions] = []
        ages: list[Ints] = []
        for rows, generation, arrived, out in zip(
            self._parts, self._generation, self._arrived, self._held, strict=True
        ):
            kept = np.flatnonzero((arrived <= now + 1) & (out == held))
            parts.append(rows if kept.size == len(rows) else rows.take(kept))
            ages.append(now - generation[kept])
        return joined(parts), np.concatenate(ages)


def with_holdout(size: int) -> int:
    """Return how many decisions there are when `size` of them are learned from and a share `HOLDOUT` is held out."""
    return round(size / (1.0 - HOLDOUT))


def _weighed(log: _Log, size: int, now: int, rules: DataRules, *, held: bool) -> tuple[Interactions, Floats]:
    """Return the rows that are mature at the end of generation `now`, held out or not, and their training weights."""
    rows, age = log.rows(now, held=held)
    ends = [size * (number + 1) for number in range(now)]
    merged = ages(ends, size * (now + 1), minimum=rules.generation_rows)[::size]
    return rows, training_weights(rows, merged[now - age], rules)


def joined(parts: Sequence[Interactions]) -> Interactions:
    """Return the interactions one after another, without weights."""
    if len(parts) == 1:
        return parts[0]
    starts = np.cumsum([0, *[len(part.batch.actions) for part in parts]])
    batch = Batch(
        contexts=[row for part in parts for row in part.batch.contexts],
        actions=[row for part in parts for row in part.batch.actions],
        action_ids=[name for part in parts for name in part.batch.action_ids],
        offsets=np.concatenate(
            [np.zeros(1, np.int64), *[p.batch.offsets[1:] + s for p, s in zip(parts, starts, strict=False)]]
        ),
    )
    return Interactions(
        batch,
        np.concatenate([part.chosen + start for part, start in zip(parts, starts, strict=False)]),
        np.concatenate([part.propensity for part in parts]),
        np.concatenate([part.reward for part in parts]),
        np.concatenate([part.pmf for part in parts]),
    )


def _verdict(
    candidate: OraclePolicy,
    champion: Policy,
    proven: Policy,
    log: _Log,
    served: Sequence[Policy],
    gate: Gate,
    looks: dict[str, list[int]],
) -> Verdict:
    rows, age = log.rows(len(served) - 1, held=True)
    scores = candidate.scores(rows.batch)
    new, base = candidate.pmf_of(scores, rows.batch), UniformPolicy().pmf(rows.batch)
    drawn = np.bincount(len(served) - 1 - age, minlength=len(served)).tolist()
    rows = balanced(rows, [policy.pmf(rows.batch) for policy in served], drawn)
    references: list[Reference] = []
    for prefix, name, policy in (("", "the champion", champion), ("proven_", "the last proven", proven)):
        if references and policy is champion:
            continue
        old = policy.pmf(rows.batch)
        diluted = old if isinstance(policy, UniformPolicy) else (1.0 - gate.share) * old + gate.share * base
        kept = lift_of(rows, new, diluted, scores).estimate
        switched = switched_lift_of(rows, new, old, scores).estimate
        predicted = None
        if sigma := candidate.exploration.sigma:
            plain = predicted_lift_of(rows, new, diluted, scores).score(sigma)
            predicted = max(plain, predicted_lift_of(rows, new, old, scores, largest=SWITCH_AT).score(sigma))
        look, likely = (count + 1 for count in looks[prefix])
        lift = lift_of(rows, new, old, scores).estimate
        references.append(Reference(name, lift, kept, switched, predicted, look=look, likely=likely))
    verdict = judge(references, alpha=gate.alpha, minimum_ess=gate.minimum_ess)
    for prefix, counts in looks.items() if verdict.numbers["judged"] else ():
        counts[0] += 1
        counts[1] += verdict.numbers.get(f"{prefix}likely", verdict.numbers["likely"]) == 1.0
    return verdict


def draw(pmf: Floats, offsets: Ints, rng: np.random.Generator, decisions: Ints | None = None) -> Ints:
    """Return [r] flat rows drawn by the inverse of each decision's distribution function.

    Args:
        pmf: [m].
        offsets: [n + 1].
        rng: source of one number each.
        decisions: [r] those that draw; None for each of the n once.
    """
    at = np.arange(offsets.size - 1) if decisions is None else decisions
    total = np.cumsum(pmf)
    before = np.concatenate((np.zeros(1), total[offsets[1:-1] - 1]))[at]
    target = before + rng.random(at.size) * (total[offsets[1:] - 1][at] - before)
    drawn = np.searchsorted(total, target, side="right")
    return np.clip(drawn, offsets[:-1][at], offsets[1:][at] - 1).astype(np.int64)


def _value(pmf: Floats, mean: Floats, offsets: Ints) -> float:
    uniform = float((group_sum(mean, offsets) / np.diff(offsets)).mean())
    optimum = float(group_max(mean, offsets).mean())
    return normalised(float(group_sum(pmf * mean, offsets).mean()), uniform=uniform, optimum=optimum)


def figures_of(trace: Trace) -> dict[str, float]:
    """Return the four numbers of a run, and the mean size of a change after generation 1."""
    values = np.array(trace.greedy)
    change = np.diff(values)[1:]
    return {
        "online": float(np.mean(trace.online[1:])),
        "last3": float(values[-3:].mean()),
        "drawdown": float((np.maximum.accumulate(values) - values).max()),
        "sign_flips": float(np.mean(np.sign(change[1:]) != np.sign(change[:-1]))) if change.size > 1 else 0.0,
        "amplitude": float(np.abs(change).mean()) if change.size else 0.0,
    }


def gate_of(trace: Trace) -> dict[str, float]:
    """Return whether a bad generation was served, how many improvements there were and how many were taken in time.

    An improvement counts as taken when a version at least that good, less half of it, is promoted at once or one
    generation later.
    """
    served = [c - b for c, b, taken in zip(trace.candidate, trace.champion, trace.promoted, strict=True) if taken]
    chances = taken_in_time = 0
    last = len(trace.candidate) - 1
    for at, (value, before) in enumerate(zip(trace.candidate, trace.champion, strict=True)):
        if value - before < BETTER or (at == last and not trace.promoted[at]):
            continue  # what is left open at the end of the run counts neither way
        chances += 1
        enough = before + 0.5 * (value - before)
        taken_in_time += any(
            trace.promoted[i] and trace.candidate[i] >= enough for i in range(at, min(at + 2, last + 1))
        )
    return {
        "bad_served": float(any(lift < -WORSE for lift in served)),
        "improvements": float(chances),
        "promoted_within_two": float(taken_in_time),
        "promotions": float(sum(trace.promoted)),
        "bad_candidates": float(sum(c - b < -WORSE for c, b in zip(trace.candidate, trace.champion, strict=True))),
    }
