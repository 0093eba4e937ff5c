"""Rows of a training as contexts and drawn actions, in parts of a fixed number of rows.

Where a part ends depends on the rows alone, not on the chunks they came in, so sums over parts are the same bit for bit
however a log was read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from decision.batch import Floats, Interactions, Ints, take_rows
from decision.columns import Codes, FeatureRows, joined
from decision.parts import Parts

ROWS = 65_536
"""Rows of a part; the last one has fewer."""


class Drawn(NamedTuple):
    """Some rows: [r] contexts, [r] drawn actions with equal ones held once, [r] rewards and [r] weights above 0."""

    contexts: FeatureRows
    chosen: FeatureRows
    reward: Floats
    weight: Floats


class DrawnRows:
    """The rows of all chunks that count, to be gone over again and again.

    Attributes:
        parts: how many parts there are.
        rows: how many rows.
        context_names: names of the contexts' features, common to all parts.
        action_names: likewise the drawn actions'.
    """

    def __init__(self, chunks: Iterable[Interactions], kept: Parts) -> None:
        self._kept = kept
        self.rows = 0
        contexts: dict[str, int] = {}
        actions: dict[str, int] = {}
        for part in _cut(chunks):
            name, value, offsets = part.contexts.entries()
            chosen = part.chosen
            kept.append(
                [
                    _codes(part.contexts.names, contexts)[name],
                    value,
                    offsets,
                    _codes(chosen.names, actions)[chosen.name],
                    chosen.value,
                    chosen.offsets,
                    chosen.rows,
                    part.reward,
                    part.weight,
                ]
            )
            self.rows += part.reward.size
        self.parts = len(kept)
        self.context_names, self.action_names = list(contexts), list(actions)

    def __iter__(self) -> Iterator[Drawn]:
        for name, value, offsets, chosen_name, chosen_value, chosen_offsets, rows, reward, weight in self._kept:
            contexts = FeatureRows(self.context_names, name, value, offsets, np.arange(reward.size, dtype=np.int64))
            chosen = FeatureRows(self.action_names, chosen_name, chosen_value, chosen_offsets, rows)
            yield Drawn(contexts, chosen, reward, weight)

    def take(self, index: Ints) -> Drawn:
        """Return the rows at `index` ([k >= 1] int64, ascending), in that order."""
        taken: list[Drawn] = []
        first = 0
        for part in self:
            within = index[(index >= first) & (index < first + part.reward.size)] - first
            some = Drawn(part.contexts.take(within), part.chosen.take(within), part.reward[within], part.weight[within])
            taken.append(some._replace(contexts=_alone(some.contexts), chosen=some.chosen.interned()))
            first += part.reward.size
        return _joined(taken)


def _cut(chunks: Iterable[Interactions]) -> Iterator[Drawn]:
    """Yield the rows that count in parts of `ROWS`."""
    waiting: list[Drawn] = []
    size = 0
    for chunk in chunks:
        rows = np.flatnonzero(chunk.weights > 0)
        contexts = FeatureRows.of(chunk.batch.contexts)
        chosen = FeatureRows.of(take_rows(chunk.batch.actions, chunk.chosen))
        start = 0
        while start < rows.size:
            some = rows[start : start + ROWS - size]
            waiting.append(Drawn(contexts.take(some), chosen.take(some), chunk.reward[some], chunk.weights[some]))
            size, start = size + some.size, start + some.size
            if size == ROWS:
                yield _joined(waiting)
                waiting, size = [], 0
    if waiting:
        yield _joined(waiting)


def _joined(parts: Sequence[Drawn]) -> Drawn:
    """Return the rows of all `parts`, drawn actions in the form that depends on the rows alone."""
    if len(parts) == 1:
        return parts[0]._replace(chosen=parts[0].chosen.interned())
    return Drawn(
        joined([_alone(part.contexts) for part in parts]),
        joined([part.chosen.interned() for part in parts]).interned(),
        np.concatenate([part.reward for part in parts]),
        np.concatenate([part.weight for part in parts]),
    )


def _alone(rows: FeatureRows) -> FeatureRows:
    """Return `rows` without what they share with others."""
    name, value, offsets = rows.entries()
    return FeatureRows(rows.names, name, value, offsets, np.arange(len(rows), dtype=np.int64))


def _codes(names: Sequence[str], known: dict[str, int]) -> Codes:
    """Return the place of each of `names` in `known`, to which new ones are added."""
    return np.array([known.setdefault(name, len(known)) for name in names], dtype=np.int32)
