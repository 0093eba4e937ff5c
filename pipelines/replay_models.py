"""Reward models of a replay: no row is predicted by a model that saw it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pyarrow as pa

from decision.batch import Floats, Interactions, Ints
from decision.contracts import Oracle
from pipelines.interactions import to_interactions
from pipelines.replay_rows import Loaded, fold_of_hash, hash_of
from pipelines.replay_survey import FOLDS, Survey, shrunk

RewardModel = Literal["means", "vw", "none"]
Oracles = tuple[Oracle | None, ...]


@dataclass(frozen=True, slots=True)
class RewardModels:
    """What predicts rewards, small enough to be sent anywhere.

    Attributes:
        names: {action id: its column in the tables}.
        folds: [2, a] mean reward by action, of the rows of the other fold.
        early: [a] of the first rows in time, for the confidence sequence.
        robust: [2, a] of the rows of the other fold, weighted for MRDR.
        files: VW models by fold; empty where the tables are the model.
        constant: by fold, where all rewards it could learn from are the same.
    """

    names: dict[str, int]
    folds: Floats
    early: Floats
    robust: Floats
    files: tuple[dict[str, bytes], ...] = ()
    constant: tuple[float | None, ...] = field(default=(None,) * FOLDS)

    def columns(self, loaded: Loaded) -> Ints:
        """Return [m] columns of the offered actions in the tables; the last one for actions never drawn."""
        unknown = len(self.names)
        return np.array([self.names.get(name, unknown) for name in loaded.names], dtype=np.int64)[loaded.ids]

    def expected(self, loaded: Loaded, oracles: Oracles) -> Floats:
        """Return [m] expected rewards; `oracles` are those of `loaded_oracles`."""
        rows = fold_of_hash(loaded.hashed)
        fold = np.repeat(rows, np.diff(loaded.interactions.batch.offsets))
        if not self.files:
            return _padded(self.folds)[fold, self.columns(loaded)]
        out = np.empty(len(fold))
        for number, (oracle, constant) in enumerate(zip(oracles, self.constant, strict=True)):
            here = np.flatnonzero(rows == number)
            if oracle is None:
                out[fold == number] = 0.0 if constant is None else constant
            elif here.size:
                out[fold == number] = oracle.predict(loaded.interactions.batch.take(here))
        return out

    def loaded_oracles(self) -> Oracles:
        """Return the VW models ready to predict, None for a constant; nothing where the tables are the model."""
        if not self.files:
            return ()
        from decision.oracles.vw import VwOracle

        return tuple(VwOracle.load(files) if files else None for files in self.files)

    def early_expected(self, loaded: Loaded) -> Floats:
        """Return [m] rewards expected from the log's first rows alone."""
        return _padded(self.early[None, :])[0, self.columns(loaded)]

    def robust_expected(self, loaded: Loaded) -> Floats:
        """Return [m] rewards expected by the model for MRDR."""
        fold = np.repeat(fold_of_hash(loaded.hashed), np.diff(loaded.interactions.batch.offsets))
        return _padded(self.robust)[fold, self.columns(loaded)]


def reward_models(survey: Survey, kind: RewardModel) -> RewardModels:
    """Return the reward models that a survey of the whole log teaches."""
    folds, early, robust = survey.tables()
    names = {name: number for number, name in enumerate(survey.names)}
    rows = survey.sampled() if kind == "vw" else None
    if rows is None:
        return RewardModels(names, folds, early, robust)
    files, constants = _fitted(rows)
    return RewardModels(names, folds, early, robust, files, constants)


def _fitted(rows: pa.Table) -> tuple[tuple[dict[str, bytes], ...], tuple[float | None, ...]]:
    from decision.oracles.vw import VwOracle, VwSettings

    log, fold = to_interactions(rows), fold_of_hash(hash_of(rows))
    files: list[dict[str, bytes]] = []
    constants: list[float | None] = []
    for number in range(FOLDS):
        training = log.take(np.flatnonzero(fold != number))
        low, high = (float(training.reward.min()), float(training.reward.max())) if len(training) else (0.0, 0.0)
        if low == high:
            files.append({})
            constants.append(low)
            continue
        oracle = VwOracle(VwSettings(low=low, high=high, passes=3))
        oracle.fit(training)
        files.append(oracle.save())
        constants.append(None)
    return tuple(files), tuple(constants)


def cross_fitted(interactions: Interactions, folds: Ints) -> Floats:
    """Return [m] mean rewards by action id, each of the rows of the other fold, see `pipelines.replay_survey.shrunk`.

    Args:
        interactions: a log at hand.
        folds: [n] in 0, 1.
    """
    encoded = pa.array(interactions.batch.action_ids, pa.string()).dictionary_encode()
    codes = encoded.indices.to_numpy().astype(np.int64)
    group = np.repeat(folds, np.diff(interactions.batch.offsets))
    chosen, size = codes[interactions.chosen], len(encoded.dictionary)
    expected = np.empty(len(codes))
    for fold in range(FOLDS):
        rows = folds != fold
        reward = np.bincount(chosen[rows], weights=interactions.reward[rows], minlength=size).astype(np.float64)
        table = shrunk(np.bincount(chosen[rows], minlength=size).astype(np.float64), reward)
        expected[group == fold] = table[codes[group == fold]]
    return expected


def _padded(tables: Floats) -> Floats:
    # An action that was offered and never drawn, or is not known, is expected to earn what all earn on average.
    return np.concatenate([tables, tables.mean(1, keepdims=True)], axis=1)
