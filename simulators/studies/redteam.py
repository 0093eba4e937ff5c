"""Callers who lie about some of six features to a bandit: what they reach, and what each defence leaves and costs.

Four actions pay with logit-linear chances in six standard normal features; the policy is the default's oracle under
SquareCB, learned from uniform rows. The attacker wants one action, which is best for a tenth of the honest callers. He
owns k of the features and writes what serves him best (`decision.exploration.reach`). The setting is that of Bai et al.
(2025, "RAT: Adversarial Attacks on Deep Reinforcement Agents for Targeted Behaviors", AAAI); the world, the attack on
one step and the cap are ours. Values are exact expected rewards on honest callers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from decision.batch import Batch, Features, Floats, Interactions
from decision.exploration.cap import capped
from decision.exploration.reach import moves_of, reach_of
from decision.exploration.rule import Exploration
from decision.oracles.action_ids import drawn_with_ids
from decision.oracles.factory import new_oracle
from decision.oracles.kind import OracleSettings
from decision.policy import OraclePolicy, blinded
from simulators.studies.interval import of_mean

FEATURES, ACTIONS, TARGET = 6, 4, 3
GAMMA, FLOOR = 100.0, 0.02
SPREAD = 0.8  # of the logits' weights
SHARE = 0.1
"""Of the honest callers, for whom the target is best."""
ROWS, CALLERS = 6_000, 200
OWNED = (1, 3)
CAPS = (2.0, 4.0, 8.0)
ATTACKS = {"half": 0.5, "two": 2.0, "any": 1e6}
"""How far from the mean he writes, in standard deviations."""

Progress = Callable[[str, float], None]
Pmf = Callable[[Batch], Floats]


class World(NamedTuple):
    """Weights [ACTIONS, FEATURES] and offsets [ACTIONS] of the chances' logits."""

    weight: Floats
    offset: Floats

    def mean(self, x: Floats) -> Floats:
        """Return [n, ACTIONS] chances of a reward for features [n, FEATURES]."""
        return np.asarray(1.0 / (1.0 + np.exp(-(x @ self.weight.T + self.offset))), dtype=np.float64)


def world_of(seed: int) -> World:
    """Return the world of a seed."""
    rng = np.random.default_rng([seed, 61])
    weight = SPREAD * rng.normal(size=(ACTIONS, FEATURES))
    logit = rng.normal(size=(20_000, FEATURES)) @ weight.T
    ahead = logit[:, TARGET] - np.delete(logit, TARGET, axis=1).max(axis=1)
    offset = np.zeros(ACTIONS)
    offset[TARGET] = -np.quantile(ahead, 1.0 - SHARE)
    return World(weight, offset)


def batch_of(x: Floats) -> Batch:
    """Return the decisions whose contexts are `x` ([n, FEATURES])."""
    names = [f"x{number}" for number in range(FEATURES)]
    contexts = [dict(zip(names, row, strict=True)) for row in x.tolist()]
    n, ids = len(x), [f"a{number}" for number in range(ACTIONS)]
    actions: list[Features] = [{}] * ACTIONS
    return Batch(contexts, actions * n, ids * n, np.arange(0, n * ACTIONS + 1, ACTIONS, dtype=np.int64))


def run(seeds: Sequence[int], *, rows: int = ROWS, quick: bool = False, progress: Progress) -> dict[str, Any]:
    """Return {"k1" | "k3": {POLICY: {"value", "lost", "clean", ATTACK}}}, each number with its interval ``X_ci``.

    ``lost`` is the share of the plain policy's value; ``clean`` and the attacks are mean probabilities of the target.

    Args:
        seeds: one or more.
        rows: uniform rows that are learned from.
        quick: fewer callers.
        progress: told of the runs that are done.
    """
    found: dict[str, list[dict[str, dict[str, float]]]] = {f"k{k}": [] for k in OWNED}
    for number, seed in enumerate(seeds):
        progress(f"callers, seed {seed}", number / len(seeds))
        for k in OWNED:
            found[f"k{k}"].append(measured(seed, k, rows, CALLERS // 4 if quick else CALLERS))
    return {name: _means(runs) for name, runs in found.items()}


def measured(seed: int, owned: int, rows: int, callers: int) -> dict[str, dict[str, float]]:
    """Return the numbers of every policy where the attacker owns the first `owned` features."""
    world = world_of(seed)
    rng = np.random.default_rng([seed, 62])
    log = _log(world, rng, rows)
    supplied = tuple(f"x{number}" for number in range(owned))
    full, trusted = _learned(log, (), seed), _learned(log, supplied, seed)

    def near(cap: float) -> Pmf:
        def pmf(batch: Batch) -> Floats:
            return capped(full(batch), trusted(blinded(batch, supplied)), batch.offsets, cap=cap)

        return pmf

    policies: dict[str, Pmf] = {"plain": full, "clip": _clipped(full, log), "smooth": _smoothed(full, seed)}
    policies |= {f"cap_{cap:g}": near(cap) for cap in CAPS}
    policies["without"] = lambda batch: trusted(blinded(batch, supplied))
    x = rng.normal(size=(callers, FEATURES))
    batch, mean = batch_of(x), world.mean(x).ravel()
    ways = {name: _ways(supplied, reach, seed) for name, reach in ATTACKS.items()}
    out: dict[str, dict[str, float]] = {}
    for policy, pmf in policies.items():
        own = pmf(batch)
        out[policy] = {
            "value": float(own @ mean) / callers,
            "clean": float(own[TARGET::ACTIONS].mean()),
            **{name: float(reach_of(pmf, batch, moves).most[TARGET::ACTIONS].mean()) for name, moves in ways.items()},
        }
    for numbers in out.values():
        numbers["lost"] = 1.0 - numbers["value"] / out["plain"]["value"]
    return out


def _log(world: World, rng: np.random.Generator, rows: int) -> Interactions:
    x = rng.normal(size=(rows, FEATURES))
    drawn = rng.integers(ACTIONS, size=rows)
    chance = world.mean(x)[np.arange(rows), drawn]
    reward = (rng.random(rows) < chance).astype(np.float64)
    chosen = np.arange(rows, dtype=np.int64) * ACTIONS + drawn
    each = np.full(rows, 1.0 / ACTIONS)
    return Interactions(batch_of(x), chosen, each, reward, np.repeat(each, ACTIONS))


def _learned(log: Interactions, supplied: Sequence[str], seed: int) -> Pmf:
    oracle = new_oracle(OracleSettings(seed=seed))
    oracle.fit(drawn_with_ids(replace(log, batch=blinded(log.batch, supplied))))
    rule = Exploration(kind="squarecb", gamma=GAMMA, floor=FLOOR)
    return OraclePolicy(oracle, rule, action_ids=True).pmf


def _array(batch: Batch) -> Floats:
    return np.array([[context[f"x{number}"] for number in range(FEATURES)] for context in batch.contexts])


def _clipped(pmf: Pmf, log: Interactions) -> Pmf:
    """Cut every feature to the 1-99% of training."""
    low, high = np.quantile(_array(log.batch), [0.01, 0.99], axis=0)
    return lambda batch: pmf(batch_of(np.clip(_array(batch), low, high)))


def _smoothed(pmf: Pmf, seed: int, copies: int = 12, spread: float = 0.5) -> Pmf:
    """Return the mean over noisy copies of the features (Cohen, Rosenfeld and Kolter 2019)."""
    noise = spread * np.random.default_rng([seed, 63]).normal(size=(copies, 1, FEATURES))

    def smooth(batch: Batch) -> Floats:
        x = _array(batch)
        return np.mean([pmf(batch_of(x + each)) for each in noise], axis=0)

    return smooth


def _ways(supplied: Sequence[str], reach: float, seed: int) -> list[Mapping[str, Features]]:
    grid = np.linspace(-reach, reach, 9 if len(supplied) == 1 else 3).tolist()
    choices = {name: [{name: value} for value in grid] for name in supplied}
    return moves_of(choices, most=27, rng=np.random.default_rng([seed, 64]))


def _means(runs: Sequence[dict[str, dict[str, float]]]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for policy in runs[0]:
        row: dict[str, Any] = {}
        for key in runs[0][policy]:
            values = [run[policy][key] for run in runs]
            row |= {key: float(np.mean(values)), f"{key}_ci": of_mean(values)}
        out[policy] = row
    return out
