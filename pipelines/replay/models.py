"""Reward models of a replay: no row is predicted by a model that saw it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast, get_args

import numpy as np

from decision.batch import Batch, Floats, Interactions, Ints
from decision.oracles.factory import load_oracle, new_oracle
from decision.oracles.kind import OracleSettings
from decision.protocols import Oracle
from pipelines.interactions.arrays import to_interactions
from pipelines.replay.rows import Loaded, fold_of_hash, hash_of
from pipelines.replay.survey import FOLDS, Survey

RewardModel = Literal["vw", "logistic", "means", "none"]
Learner = Literal["vw", "logistic"]
LEARNED: tuple[str, ...] = get_args(Learner)
"""Reward models that read features; the others know actions by their ids alone."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """A learned model for every fold, fitted on the rows of all others; small enough to be sent anywhere.

    Attributes:
        kind: of the oracle.
        files: of the oracle by fold; empty where all rewards it could learn from are the same.
        constant: that reward, by fold.
    """

    kind: str
    files: tuple[dict[str, bytes], ...]
    constant: tuple[float, ...]

    @staticmethod
    def of(log: Interactions, fold: Ints, kind: Learner) -> Fitted:
        """Return the models of a log whose rows are in [n] folds."""
        files: list[dict[str, bytes]] = []
        constant: list[float] = []
        for number in range(FOLDS):
            training = log.take(np.flatnonzero(fold != number))
            low, high = (float(training.reward.min()), float(training.reward.max())) if len(training) else (0.0, 0.0)
            constant.append(low)
            if low == high:
                files.append({})
                continue
            oracle = new_oracle(OracleSettings(kind=kind, low=low, high=high))
            oracle.fit(training)
            files.append(oracle.save())
        return Fitted(kind, tuple(files), tuple(constant))

    def load(self) -> tuple[Oracle | None, ...]:
        """Return the models ready to predict; None for a constant."""
        return tuple(load_oracle(self.kind, files) if files else None for files in self.files)

    def predict(self, batch: Batch, fold: Ints, oracles: tuple[Oracle | None, ...]) -> Floats:
        """Return [m] expected rewards of decisions in [n] folds; `oracles` are those of `load`."""
        flat = np.repeat(fold, np.diff(batch.offsets))
        out = np.empty(len(flat))
        for number, oracle in enumerate(oracles):
            here = np.flatnonzero(fold == number)
            if oracle is None:
                out[flat == number] = self.constant[number]
            elif here.size:
                out[flat == number] = oracle.predict(batch.take(here))
        return out


@dataclass(frozen=True, slots=True)
class Predicted:
    """Expected rewards of the offered actions of some rows, each [m].

    Attributes:
        expected: by the model of each row's fold.
        early: by that of the log's first rows alone.
        robust: by that of each row's fold for MRDR.
    """

    expected: Floats
    early: Floats
    robust: Floats


@dataclass(frozen=True, slots=True)
class RewardModels:
    """What predicts rewards, small enough to be sent anywhere.

    Attributes:
        names: {action id: its column in the tables}.
        folds: [f, a] mean reward by action, of the rows of the other folds.
        early: [a] of the first rows in time, for the confidence sequence.
        robust: [f, a] of the rows of the other folds, weighted for MRDR.
        fitted: learned models; None where the tables are the model.
    """

    names: dict[str, int]
    folds: Floats
    early: Floats
    robust: Floats
    fitted: Fitted | None = None

    def predict(self, loaded: Loaded, oracles: tuple[Oracle | None, ...]) -> Predicted:
        """Return expected rewards of some rows; `oracles` are those of `loaded_oracles`."""
        unknown = len(self.names)
        place = np.array([self.names.get(name, unknown) for name in loaded.names], dtype=np.int64)
        column, sizes = place[loaded.ids], np.diff(loaded.interactions.batch.offsets)
        fold = fold_of_hash(loaded.hashed, FOLDS)
        # Of fold and column, one place in a flat table.
        flat = np.repeat(fold * (unknown + 1), sizes) + column
        expected = (
            _padded(self.folds).ravel()[flat]
            if self.fitted is None
            else self.fitted.predict(loaded.interactions.batch, fold, oracles)
        )
        return Predicted(expected, _padded(self.early[None, :])[0, column], _padded(self.robust).ravel()[flat])

    def loaded_oracles(self) -> tuple[Oracle | None, ...]:
        """Return the learned models ready to predict; nothing where the tables are the model."""
        return () if self.fitted is None else self.fitted.load()


def reward_models(survey: Survey, kind: RewardModel) -> RewardModels:
    """Return the reward models that a survey of the whole log teaches."""
    folds, early, robust = survey.tables()
    names = {name: number for number, name in enumerate(survey.names)}
    rows = survey.sampled() if kind in LEARNED else None
    if rows is None:
        return RewardModels(names, folds, early, robust)
    log = to_interactions(rows)
    if not any(log.batch.contexts) and not any(log.batch.actions):
        return RewardModels(names, folds, early, robust)  # there are no features to learn from
    learned = Fitted.of(log, fold_of_hash(hash_of(rows), FOLDS), cast(Learner, kind))
    return RewardModels(names, folds, early, robust, learned)


def _padded(tables: Floats) -> Floats:
    # An action that was offered and never drawn, or is not known, is expected to earn what all earn on average.
    return np.concatenate([tables, tables.mean(1, keepdims=True)], axis=1)
