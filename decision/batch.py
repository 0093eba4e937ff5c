"""Decisions in bulk: ragged batches of flattened features.

A batch holds n decisions whose action sets differ in size. Everything per action is stored flat, in the order
offered, and ``offsets`` says where each decision's actions begin; so every computation is one pass over flat
arrays. Features are flattened mappings from name to number, see `decision.features`: columns where there are many rows,
dictionaries where there are few.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from decision.columns import FeatureRows, Features, Texts
from decision.errors import FieldError
from decision.ragged import Floats, Ints, ragged_offsets, ragged_rows

__all__ = ["Batch", "Features", "Floats", "Interactions", "Ints", "one", "take_rows"]


@dataclass(frozen=True, slots=True)
class Batch:
    """n decisions with ragged action sets.

    Attributes:
        contexts: [n] context features, as `FeatureRows` or dictionaries, the snapshot of looked-up features included.
        actions: [m] features of every offered action, likewise, decision after decision.
        action_ids: [m] their ids, as `Texts` or a list.
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
        offsets = ragged_offsets(np.diff(self.offsets)[rows])
        flat = ragged_rows(self.offsets[rows], offsets)
        return Batch(
            contexts=take_rows(self.contexts, rows),
            actions=take_rows(self.actions, flat),
            action_ids=_take_texts(self.action_ids, flat),
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


def take_rows(rows: Sequence[Features], index: Ints) -> Sequence[Features]:
    """Return the rows at `index` ([k] int64), in that order."""
    return rows.take(index) if isinstance(rows, FeatureRows) else [rows[i] for i in index.tolist()]


def _take_texts(texts: Sequence[str], index: Ints) -> Sequence[str]:
    if isinstance(texts, Texts):
        return texts.take(index)
    chosen = [str(texts[i]) for i in index.tolist()]
    return chosen
