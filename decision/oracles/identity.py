"""Which action ids get weights of their own, and how many: what ids cost stays small however many there are.

An id that coincides with a feature, as the only action of its colour does, says nothing new and is left out. The most
frequent of the others may be crossed with the context; the rest have one weight each, up to a limit, and what is beyond
it shares what the features say. The prior takes an id's own effect for a matter of half a unit of the logit, so that
with few rows it stays near 0.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from decision.columns import FeatureRows, Features
from decision.oracles.action_ids import is_id
from decision.ragged import Floats, Ints, ragged_offsets

PRECISION, CROSSED_PRECISION = 3.0, 10.0
"""Smallest prior precision of the weight of an id, and of its weights with the context."""
MAX_CROSSED = 256
"""Ids that are crossed with the context."""
MAX_ALONE = 20_000
"""Ids that have a weight of their own beside them."""
MAX_FEW = 64
"""Ids that models know which ask for a dense matrix."""
_EVIDENCE = 20  # rows of an id before it is crossed


class Ids(NamedTuple):
    """Names of ids, the most frequent first: those to be crossed with the context, and those that stand alone."""

    crossed: list[str]
    alone: list[str]


def ranked_ids(
    names: list[str], parts: Callable[[], Iterable[FeatureRows]], known: Collection[str] = ()
) -> list[tuple[str, int]]:
    """Return the ids that say something beside the features, with how many rows have them, the most frequent first.

    Args:
        names: of all parts, each in the same place.
        parts: gives rows of drawn actions.
        known: ids that are left out.
    """
    ids = np.array([is_id(name) and name not in known for name in names], dtype=np.bool_)
    if not ids.any():
        return []
    width = len(names)
    count: Floats = np.zeros(width)
    codes, together = np.zeros(0, np.int64), np.zeros(0)
    for part in parts():
        row = np.repeat(np.arange(part.distinct), np.diff(part.offsets))
        times = np.bincount(part.rows, minlength=part.distinct)[row]
        of_id = ids[part.name]
        flags = (part.value == 1.0) & ~of_id
        count += np.bincount(part.name, weights=np.where(of_id | flags, times, 0), minlength=width)
        own = np.full(part.distinct, -1, np.int64)
        own[row[of_id]] = part.name[of_id]
        flags &= own[row] >= 0
        found = np.concatenate((codes, own[row[flags]] * width + part.name[flags]))
        codes, place = np.unique(found, return_inverse=True)
        together = np.bincount(place.ravel(), np.concatenate((together, times[flags])), codes.size)
    one, other = np.divmod(codes, width)
    same = (together == count[one]) & (together == count[other])
    wanted: Ints = np.flatnonzero(ids & (count > 0) & ~np.isin(np.arange(width), one[same]))
    found_ids = [(names[code], int(count[code])) for code in wanted.tolist()]
    return sorted(found_ids, key=lambda entry: (-entry[1], entry[0]))


def most_frequent_ids(rows: Sequence[Features], most: int) -> list[str]:
    """Return the ids of [r] drawn actions that say something beside the features, at most `most`, each in 20 rows."""
    held = FeatureRows.of(rows)
    ranked = ranked_ids(held.names, lambda: [held])
    return [name for name, count in ranked[: max(most, 0)] if count >= _EVIDENCE]


def without_other_ids(rows: FeatureRows, known: Collection[str]) -> FeatureRows:
    """Return [r] actions without the ids that are not in `known`."""
    out = np.array([is_id(name) and name not in known for name in rows.names], dtype=np.bool_)
    if not out.any():
        return rows
    kept = ~out[rows.name]
    offsets = ragged_offsets(kept.astype(np.int64))[rows.offsets]
    return FeatureRows(rows.names, rows.name[kept], rows.value[kept], offsets, rows.rows)


def chosen_ids(ranked: list[tuple[str, int]], *, cost: int, room: int, columns: int) -> Ids:
    """Return what ids the weights that are left have room for.

    Args:
        ranked: see `ranked_ids`.
        cost: weights of an id that is crossed; 0 where none is.
        room: weights that are left; the crossed ones take half of them at most.
        columns: columns that are left.
    """
    most = min(MAX_CROSSED, max(columns, 0), max(room, 0) // (2 * cost)) if cost else 0
    crossed = [name for name, count in ranked[:most] if count >= _EVIDENCE]
    left = max(room - cost * len(crossed), 0)
    return Ids(crossed, [name for name, _ in ranked[len(crossed) :][: min(left, MAX_ALONE)]])
