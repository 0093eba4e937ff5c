"""Reward models of a replay: no row is predicted by a model that saw it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Literal, cast, get_args

import numpy as np
import pyarrow as pa

from decision.batch import Batch, Features, Floats, Interactions, Ints
from decision.columns import FeatureRows
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
    """Learned models by fold, small enough to be sent anywhere; `+` joins those of different folds.

    Attributes:
        kind: of the oracle.
        files: of the oracle by fold; empty where all rewards it could learn from are the same.
        constant: that reward, by fold.
    """

    kind: str
    files: dict[int, dict[str, bytes]]
    constant: dict[int, float]

    def __add__(self, other: Fitted) -> Fitted:
        return Fitted(self.kind, self.files | other.files, self.constant | other.constant)

    def load(self) -> tuple[Oracle | None, ...]:
        """Return the models of all folds ready to predict; None for a constant."""
        files = [self.files[number] for number in range(FOLDS)]
        return tuple(load_oracle(self.kind, of_fold) if of_fold else None for of_fold in files)

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


@dataclass(frozen=True, slots=True, eq=False)
class CrossFit:
    """What learned models are fitted on, each fold's on the rows of all others.

    Attributes:
        kind: of the oracle.
        log: [n] rows.
        fold: [n] int64 in 0..FOLDS-1.
    """

    kind: Learner
    log: Interactions
    fold: Ints

    @staticmethod
    def of(rows: pa.Table | None, kind: RewardModel) -> CrossFit | None:
        """Return the task that sampled rows set; None where the tables of means are the model."""
        if kind not in LEARNED or rows is None:
            return None
        log = to_interactions(rows)
        if not any(_any(features) for features in (log.batch.contexts, log.batch.actions)):
            return None  # there are no features to learn from
        return CrossFit(cast(Learner, kind), log, fold_of_hash(hash_of(rows), FOLDS))

    def model(self, fold: int) -> Fitted:
        """Return the model of one fold."""
        training = self.log.take(np.flatnonzero(self.fold != fold))
        low, high = (float(training.reward.min()), float(training.reward.max())) if len(training) else (0.0, 0.0)
        if low == high:
            return Fitted(self.kind, {fold: {}}, {fold: low})
        oracle = new_oracle(OracleSettings(kind=self.kind, low=low, high=high))
        oracle.fit(training)
        return Fitted(self.kind, {fold: oracle.save()}, {fold: low})

    def models(self) -> Fitted:
        """Return the models of all folds, one after the other."""
        return reduce(add, map(self.model, range(FOLDS)))


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


def reward_models(survey: Survey, fitted: Fitted | None = None) -> RewardModels:
    """Return the reward models that a survey of the whole log teaches, with learned ones where there are such."""
    folds, early, robust = survey.tables()
    return RewardModels({name: number for number, name in enumerate(survey.names)}, folds, early, robust, fitted)


def _any(features: Sequence[Features]) -> bool:
    columns = FeatureRows.of(features)
    return bool(np.diff(columns.offsets)[columns.rows].any())


def _padded(tables: Floats) -> Floats:
    # An action that was offered and never drawn, or is not known, is expected to earn what all earn on average.
    return np.concatenate([tables, tables.mean(1, keepdims=True)], axis=1)
