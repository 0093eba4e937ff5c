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

    def few(self, count: int) -> Drawn:
        """Return about `count` rows that stand for all, whose weights sum to those of all.

        They lie evenly. Where rewards are all but equal, as with rare clicks, rows of the rarer side of the mean are
        added until they are a quarter of `count` or all that there are, and count for that side: an even pick has too
        few of them to say how likely they are.
        """
        sizes = [(part.reward.size, float(part.weight.sum()), float(part.weight @ part.reward)) for part in self]
        total = sum(weight for _, weight, _ in sizes)
        mean = sum(reward for _, _, reward in sizes) / total
        above = np.concatenate([part.reward > mean for part in self])
        rare = above if 2 * int(above.sum()) < above.size else ~above
        index = np.linspace(0, self.rows - 1, count).astype(np.int64)
        wanted = min(int(rare.sum()), count // 4)
        if int(rare[index].sum()) >= wanted:
            some = self.take(index)
            return some._replace(weight=some.weight * (total / float(some.weight.sum())))
        added = np.flatnonzero(rare)[np.linspace(0, int(rare.sum()) - 1, wanted).astype(np.int64)]
        index = np.union1d(index[~rare[index]], added)
        some, first, rarely = self.take(index), 0, 0.0
        for part in self:
            rarely += float(part.weight[rare[first : first + part.reward.size]].sum())
            first += part.reward.size
        side, weight = rare[index], some.weight
        scale = np.where(side, rarely / weight[side].sum(), (total - rarely) / weight[~side].sum())
        return some._replace(weight=weight * scale)

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
