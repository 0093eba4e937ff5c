"""Reward models of a replay: no row is predicted by a model that saw it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, cast, get_args

import numpy as np
import pyarrow as pa

from decision.batch import Features, Floats
from decision.columns import FeatureRows
from decision.oracles.action_ids import with_ids
from decision.protocols import Oracle
from pipelines.interactions.arrays import to_interactions
from pipelines.replay.crossfit import FOLDS, CrossFit, Fitted, Learner
from pipelines.replay.rows import Loaded, fold_of_hash, hash_of
from pipelines.replay.survey import Survey

RewardModel = Literal["vw", "logistic", "means", "none"]
LEARNED: tuple[str, ...] = get_args(Learner)
"""Reward models that read features; the others know actions by their ids alone."""


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


def crossfit_of(rows: pa.Table | None, kind: RewardModel) -> CrossFit | None:
    """Return what models of `kind` are fitted on; None where the tables of means are the model.

    Args:
        rows: the sample of a survey.
        kind: of the reward model.

    Raises:
        FieldError: the features of a row cannot be read.
    """
    if kind not in LEARNED or rows is None:
        return None
    log = to_interactions(rows)
    if not any(_any(features) for features in (log.batch.contexts, log.batch.actions)):
        return None  # there are no features to learn from
    folds = fold_of_hash(hash_of(rows), FOLDS)
    if _any(log.batch.actions):
        return CrossFit(cast(Learner, kind), log, folds)
    # Actions that say nothing of themselves are told apart by their ids, as a loop that learns from them does.
    return CrossFit(cast(Learner, kind), replace(log, batch=with_ids(log.batch)), folds, named=True)


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
