"""Decisions in bulk: ragged batches of flattened features.

A batch holds n decisions whose action sets differ in size. Everything per action is stored flat, in the order
offered, and ``offsets`` says where each decision's actions begin; so every computation is one pass over flat
arrays. Features are flattened mappings from name to number, see `decision.features`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from decision.errors import FieldError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Features = dict[str, float]
"""Flattened features: name -> finite number. Categories are ``name=value`` -> 1."""


@dataclass(frozen=True, slots=True)
class Batch:
    """n decisions with ragged action sets.

    Attributes:
        contexts: [n] context features, the snapshot of looked-up features included.
        actions: [m] features of every offered action, decision after decision.
        action_ids: [m] their ids.
        offsets: [n + 1] int64; decision i offers rows ``offsets[i]:offsets[i + 1]``; every decision offers one or more.
    """

    contexts: Sequence[Features]
    actions: Sequence[Features]
    action_ids: Sequence[str]
    offsets: Ints

    def __post_init__(self) -> None:
        n, m = len(self.contexts), len(self.actions)
        if self.offsets.shape != (n + 1,) or self.offsets[0] != 0 or self.offsets[-1] != m:
            raise FieldError("offsets", wanted=f"{n + 1} offsets from 0 to {m}", got=self.offsets)
        if n and int(np.diff(self.offsets).min()) < 1:
            raise FieldError("offsets", wanted="one action or more in every decision", got=self.offsets)
        if len(self.action_ids) != m:
            raise FieldError("action_ids", wanted=f"{m} ids", got=len(self.action_ids))

    def __len__(self) -> int:
        return len(self.contexts)

    def take(self, rows: Ints) -> Batch:
        """Return the decisions at `rows` ([r] int64), in that order."""
        sizes = np.diff(self.offsets)[rows]
        offsets = np.concatenate(([0], np.cumsum(sizes))).astype(np.int64)
        flat = ragged_rows(self.offsets[rows], offsets)
        return Batch(
            contexts=[self.contexts[int(i)] for i in rows],
            actions=[self.actions[int(j)] for j in flat],
            action_ids=[self.action_ids[int(j)] for j in flat],
            offsets=offsets,
        )


@dataclass(frozen=True, slots=True)
class Interactions:
    """n decisions with their rewards: the input of trainers and estimators.

    Attributes:
        batch: the decisions.
        chosen: [n] int64 flat row of the drawn action, in ``offsets[i]:offsets[i + 1]``.
        propensity: [n] in (0, 1].
        reward: [n] finite, higher is better.
        pmf: [m] flat logging distribution.
        weight: [n] how much each row counts in training, 0 or more; None for all alike. Evaluation does not look at it.
    """

    batch: Batch
    chosen: Ints
    propensity: Floats
    reward: Floats
    pmf: Floats
    weight: Floats | None = None

    def __len__(self) -> int:
        return len(self.batch)

    @property
    def weights(self) -> Floats:
        """[n] training weights, 1 where none were given."""
        return np.ones(len(self)) if self.weight is None else self.weight

    def take(self, rows: Ints) -> Interactions:
        """Return the interactions at `rows` ([r] int64), in that order."""
        batch = self.batch.take(rows)
        flat = ragged_rows(self.batch.offsets[rows], batch.offsets)
        chosen = self.chosen[rows] - self.batch.offsets[rows] + batch.offsets[:-1]
        weight = None if self.weight is None else self.weight[rows]
        return Interactions(batch, chosen, self.propensity[rows], self.reward[rows], self.pmf[flat], weight)


def one(context: Features, actions: Sequence[Features], action_ids: Sequence[str]) -> Batch:
    """Return a batch of a single decision."""
    return Batch([context], actions, action_ids, np.array([0, len(actions)], dtype=np.int64))


def ragged_rows(starts: Ints, offsets: Ints) -> Ints:
    """Return the flat rows of groups that begin at `starts` ([n]) and have the sizes of `offsets` ([n + 1])."""
    rows: Ints = np.repeat(starts - offsets[:-1], np.diff(offsets)) + np.arange(int(offsets[-1]), dtype=np.int64)
    return rows
