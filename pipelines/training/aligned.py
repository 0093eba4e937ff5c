"""How much of a loop's auxiliary outcomes a training learns from: each weight is tried on rows that its model saw not.

The rows are cut into folds. For each weight a model learns from all folds but one, and its greedy policy is judged on
that one by the reward alone, with the model of weight 0 as the control variate. The gate's holdout is not looked at.
Several outcomes are weighed one after another, each beside those before it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import numpy as np

from decision.batch import Floats, Interactions, Ints
from decision.exploration.greedy import greedy
from decision.ope.estimators.dr import dr_terms
from decision.ope.selection.auxiliary import choose, unit_of
from decision.options import Range
from decision.oracles.action_ids import with_ids
from decision.reward import Rewards
from pipelines.progress import Progress, silent
from pipelines.settings import LoopSettings, Variant
from pipelines.training.variants import configuration, learned
from pipelines.training.window import Window

FOLDS = 4
MOST_ROWS = 50_000
"""Rows that weights are tried on, evenly spread over the window: each is fitted `FOLDS` times per weight."""


class Tried(msgspec.Struct, frozen=True, kw_only=True):
    """A weight and what it earned.

    Attributes:
        weight: in deviations of the reward per deviation of the outcome.
        lift: what its greedy policy earns more than that of weight 0, in reward per decision, doubly robust.
        error: standard error of that.
    """

    weight: float
    lift: float
    error: float


class Aligned(msgspec.Struct, frozen=True, kw_only=True):
    """What became of an auxiliary outcome.

    Attributes:
        outcome: its name.
        weight: the one that was chosen.
        factor: what a unit of it adds to the reward that is learned from, in reward units; 0 with the weight.
        mean: of the outcome over the rows.
        tried: all weights, 0 first.
    """

    outcome: str
    weight: float
    factor: float
    mean: float
    tried: list[Tried]


def aligned_with(
    rows: Window, loop: LoopSettings, seed: int, progress: Progress = silent
) -> tuple[Window, list[Aligned]]:
    """Return the rows with what is to be learned of them, and how much of each auxiliary outcome that holds.

    Args:
        rows: the window; without auxiliary outcomes, or where none earns more, it is returned as it is.
        loop: the loop.
        seed: of the models and of the folds.
        progress: told of the weights that were tried.

    Raises:
        SupportError: the rules of the training leave no row.
    """
    if not loop.reward.auxiliary:
        return rows, []
    (log, age), outcomes = rows.learned(), rows.beside()
    found = weighed(log, age, outcomes, loop, seed, rows.reward, progress)
    if not any(one.factor for one in found):
        return rows, found
    reward = range_with(rows.reward, np.array([one.factor for one in found]), outcomes)
    return rows.adding({one.outcome: one.factor for one in found}, reward), found


def weighed(
    log: Interactions,
    age: Ints,
    outcomes: Floats,
    loop: LoopSettings,
    seed: int,
    reward: Range,
    progress: Progress = silent,
) -> list[Aligned]:
    """Return the weight of each auxiliary outcome of the loop.

    Args:
        log: n rows to learn from, with the reward itself.
        age: [n] generations between each and the newest.
        outcomes: [a, n] values of the outcomes.
        loop: its settings say which weights are tried, and what is trained.
        seed: of the models and of the folds.
        reward: range of the reward.
        progress: told of the weights that were tried.

    Raises:
        SupportError: the rules of the training leave no row.
    """
    means = outcomes @ log.weights / log.weights.sum()
    trial = _Trial(log, age, outcomes, loop, seed, reward)
    factors, found, done = np.zeros(len(outcomes)), list[Aligned](), 0
    total = sum(len(_weights_of(one.weights)) for one in loop.reward.auxiliary)
    for number, one in enumerate(loop.reward.auxiliary):
        weights = _weights_of(one.weights)
        unit = unit_of(np.clip(log.reward, reward.low, reward.high), outcomes[number], log.weights)
        worth = list[Floats]()
        for each in weights if unit else weights[:1]:
            beside = factors.copy()
            beside[number] = each * unit
            worth.append(trial.worth(beside))
            done += 1
            progress("weights of auxiliary outcomes tried", done, total)
        chosen, lift, error = choose(np.stack(worth), trial.weight)
        factors[number] = weights[chosen] * unit
        tried = [
            Tried(weight=weight, lift=gain, error=doubt)
            for weight, gain, doubt in zip(weights, lift.tolist(), error.tolist(), strict=False)
        ]
        found.append(
            Aligned(
                outcome=one.outcome,
                weight=weights[chosen],
                factor=float(factors[number]),
                mean=float(means[number]),
                tried=tried,
            )
        )
    return found


def range_with(reward: Range, factors: Floats, outcomes: Floats) -> Range:
    """Return the range of a reward in `reward` and `factors` ([a]) times `outcomes` ([a, n])."""
    low, high = reward.low, reward.high
    for factor, values in zip(factors.tolist(), outcomes, strict=True):
        seen = Rewards()
        seen.add(values, np.arange(values.size) / max(1, values.size))
        one = seen.range()
        ends = factor * min(one.low, 0.0), factor * max(one.high, 0.0)
        low, high = low + min(ends), high + max(ends)
    return Range(low=low, high=high)


def is_mixed(training: dict[str, Any]) -> bool:
    """Return whether the scores of a version whose manifest says this of its training are more than rewards."""
    return any(one.get("factor") for one in training.get("auxiliary", []))


class _Trial:
    """Models of sums of reward and outcomes, each judged by the reward alone on rows that it has not seen."""

    def __init__(
        self,
        log: Interactions,
        age: Ints,
        outcomes: Floats,
        loop: LoopSettings,
        seed: int,
        reward: Range,
    ) -> None:
        n = len(log)
        if n > MOST_ROWS:
            kept = np.linspace(0, n - 1, MOST_ROWS).astype(np.int64)
            log, age, outcomes = log.take(kept), age[kept], outcomes[:, kept]
        self._log = replace(log, reward=np.clip(log.reward, reward.low, reward.high))
        self._age, self._outcomes = age, outcomes
        self._loop, self._seed, self._reward = loop, seed, reward
        self._fold = np.random.default_rng([seed, len(log)]).permutation(len(log)) % FOLDS
        self._expected: list[Floats] = []
        self.weight = log.weights

    def worth(self, factors: Floats) -> Floats:
        """Return [n] terms of the greedy policy of the models that learn from the reward and `factors` ([a]) more."""
        found = np.zeros(len(self._log))
        sums = replace(self._log, reward=self._log.reward + factors @ self._outcomes)
        made = configuration(self._loop, Variant(), self._seed, range_with(self._reward, factors, self._outcomes))
        for fold in range(FOLDS):
            seen, unseen = np.flatnonzero(self._fold != fold), np.flatnonzero(self._fold == fold)
            _, oracle, _ = learned([(sums.take(seen), self._age[seen])], made, [])
            judged = self._log.take(unseen)
            scores = oracle.predict(with_ids(judged.batch) if made.action_ids else judged.batch)
            if len(self._expected) == fold:  # the first question is about the reward alone
                self._expected.append(scores)
            found[unseen] = dr_terms(judged, greedy(scores, judged.batch.offsets), self._expected[fold])
        return found


def _weights_of(given: tuple[float, ...]) -> list[float]:
    return list(dict.fromkeys((0.0, *given)))
