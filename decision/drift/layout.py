"""What is counted of decisions: a bounded list of cells, fixed once and then the same for every sample.

A feature has a cell for its absence, one for each of its most frequent values, one for all others, and one for each
tenth of its numbers. Ids of offered and of drawn actions are laid out like values. A decision may be in several cells
of a feature that is a set of categories.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from decision.columns import Texts
from decision.drift.observed import Described
from decision.ragged import Floats, Ints

MOST_FEATURES, MOST_VALUES, MOST_ACTIONS = 200, 30, 300
BINS = 10
FEW, FEW_SUBJECTS = 30, 5
"""A value has a cell of its own, and so a name in what is kept, from so many decisions about so many subjects on."""
LONGEST = 120
"""Characters of a value or name that has a cell of its own."""


class Feature(msgspec.Struct, frozen=True, kw_only=True):
    """The cells of one feature, in this order: missing, other values, each of `values`, numbers by `edges`.

    Attributes:
        name: without a value.
        values: categories with cells of their own, most frequent first.
        complete: whether they are all that there were.
        edges: rising limits of the numbers' cells: at most the first, between two, above the last; [] without numbers.
    """

    name: str
    values: list[str] = []
    complete: bool = True
    edges: list[float] = []

    @property
    def cells(self) -> int:
        """How many there are."""
        return 2 + len(self.values) + (len(self.edges) + 1 if self.edges else 0)

    def label(self, cell: int) -> str:
        """Return what the decisions of a cell have in common, in words."""
        if cell < 2:
            return "missing" if cell == 0 else "another value"
        if cell < 2 + len(self.values):
            return self.values[cell - 2]
        at = cell - 2 - len(self.values)
        if at == 0:
            return f"at most {self.edges[0]:.4g}"
        if at == len(self.edges):
            return f"above {self.edges[-1]:.4g}"
        return f"{self.edges[at - 1]:.4g} to {self.edges[at]:.4g}"

    def segment(self, cell: int) -> str:
        """Return the name of the decisions in a cell."""
        label = self.label(cell)
        return f"{self.name}={label}" if 2 <= cell < 2 + len(self.values) else f"{self.name} {label}"


class Members(NamedTuple):
    """Which decision is in which cell, [p] pairs, each once."""

    row: Ints
    cell: Ints


class _Entries(NamedTuple):
    row: Ints
    base: Ints  # feature of each entry
    bases: list[str]
    word: Ints  # code of a category's value among `words`; -1 for a number
    words: list[str]
    value: Floats


def laid_out(observed: Described) -> list[Feature]:
    """Return the features, those of most decisions or offers first, at most `MOST_FEATURES`."""
    entries = _entries(observed)
    width = len(entries.bases)
    pairs = np.unique(entries.base * len(observed) + entries.row) // max(len(observed), 1)
    times = np.bincount(pairs, minlength=width)
    found: list[Feature] = []
    order = np.argsort(entries.base, kind="stable")
    starts = np.searchsorted(entries.base[order], np.arange(width + 1))
    for base in np.argsort(-times, kind="stable").tolist():
        if len(found) == MOST_FEATURES or times[base] < FEW:
            break
        if len(entries.bases[base]) > LONGEST:
            continue
        own = order[starts[base] : starts[base + 1]]
        words, numbers = own[entries.word[own] >= 0], own[entries.word[own] < 0]
        values, complete = _frequent(
            entries.word[words], entries.words, observed.subject[entries.row[words]], MOST_VALUES
        )
        edges = _edges(entries.value[numbers], observed.weight[entries.row[numbers]]) if numbers.size >= FEW else []
        found.append(Feature(name=entries.bases[base], values=values, complete=complete, edges=edges))
    return found


def laid_out_actions(name: str, ids: Texts, subject: Ints) -> Feature:
    """Return the cells of actions.

    Args:
        name: of the list of cells.
        ids: [m] actions.
        subject: [m] whom each was offered to; an id that few subjects met may name one of them.
    """
    values, complete = _frequent(np.asarray(ids.code, np.int64), ids.names, subject, MOST_ACTIONS)
    return Feature(name=name, values=values, complete=complete)


def members(features: Sequence[Feature], observed: Described) -> Iterator[Members]:
    """Yield who is in which cell of each feature."""
    entries = _entries(observed)
    known = {feature.name: place for place, feature in enumerate(features)}
    of = np.array([known.get(base, -1) for base in entries.bases], np.int64)
    place = of[entries.base] if entries.base.size else np.zeros(0, np.int64)
    order = np.argsort(place, kind="stable")
    cuts = np.searchsorted(place[order], np.arange(len(features) + 1))
    for number, feature in enumerate(features):
        own = order[cuts[number] : cuts[number + 1]]
        word, row = entries.word[own], entries.row[own]
        used, code = np.unique(word, return_inverse=True)
        named = {value: 2 + at for at, value in enumerate(feature.values)}
        cell = np.array([1 if w < 0 else named.get(entries.words[w], 1) for w in used.tolist()], np.int64)[code]
        if feature.edges:
            binned = 2 + len(feature.values) + np.searchsorted(feature.edges, entries.value[own], side="left")
            cell = np.where(word < 0, binned, cell)
        absent = np.ones(len(observed), np.bool_)
        absent[row] = False
        gone = np.flatnonzero(absent)
        yield _once(np.concatenate((row, gone)), np.concatenate((cell, np.zeros(gone.size, np.int64))), len(observed))


def members_of(actions: Feature, row: Ints, ids: Texts, rows: int) -> Members:
    """Return who is in which of the cells of `actions`: decision `row` ([m]) met the action `ids` ([m])."""
    return _once(row, cells_of(actions, ids), rows)


def cells_of(actions: Feature, ids: Texts) -> Ints:
    """Return [m] the cell of `actions` that each of `ids` ([m]) is in."""
    named = {value: 2 + at for at, value in enumerate(actions.values)}
    code = np.array([named.get(name, 1) for name in ids.names], np.int64)
    return code[ids.code] if len(ids) else np.zeros(0, np.int64)


def _once(row: Ints, cell: Ints, n: int) -> Members:
    pairs = np.unique(cell * max(n, 1) + row)
    return Members(pairs % max(n, 1), pairs // max(n, 1))


def _entries(observed: Described) -> _Entries:
    bases: dict[str, int] = {}
    words: dict[str, int] = {}
    base, word = np.zeros(len(observed.name.names), np.int64), np.full(len(observed.name.names), -1, np.int64)
    for code, full in enumerate(observed.name.names):
        name, found, value = full.partition("=")
        base[code] = bases.setdefault(name, len(bases))
        if found:
            word[code] = words.setdefault(value, len(words))
    code = observed.name.code
    return _Entries(observed.row, base[code], list(bases), word[code], list(words), observed.value)


def _frequent(code: Ints, names: list[str], subject: Ints, most: int) -> tuple[list[str], bool]:
    """Return the values that enough decisions and subjects have, most frequent first, and whether there are others."""
    used, own, times = np.unique(code, return_inverse=True, return_counts=True)
    _, who = np.unique(subject, return_inverse=True)
    pairs = np.unique(own * (int(who.max(initial=0)) + 1) + who) // (int(who.max(initial=0)) + 1)
    subjects = np.bincount(pairs, minlength=used.size)
    kept = [
        names[used[at]]
        for at in np.argsort(-times, kind="stable").tolist()
        if times[at] >= FEW and subjects[at] >= FEW_SUBJECTS and len(names[used[at]]) <= LONGEST
    ][:most]
    return kept, len(kept) == used.size


def _edges(value: Floats, weight: Floats) -> list[float]:
    order = np.argsort(value, kind="stable")
    share = np.cumsum(weight[order]) / weight.sum()
    at = np.searchsorted(share, np.linspace(0.0, 1.0, BINS + 1)[1:-1])
    edges = value[order][np.minimum(at, value.size - 1)]
    return np.unique(np.concatenate((value[order][[0, -1]], edges))).tolist()
