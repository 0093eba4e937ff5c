"""Alarms of a night about the contexts' features: some vanish, some grow, new names come by the thousand.

What vanished or grew is told by exact tests with the error of a night's alarms. That names come by the thousand is a
count: names that hold an id or a time are learned once and never met again, and use up a model's room for columns.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

from decision.batch import Floats, Ints
from decision.ope.diagnostics.shift import fewer, more
from pipelines.evaluation.standing import Alarm

pc: Any = pyarrow.compute  # its functions are made when it is imported; type checkers do not see them

GONE, GROWN = 0.1, 10.0
"""A feature is gone below this share of its former frequency; grown where values pass this multiple of former ones."""
NEW = 1_000
"""Names that none of the nights before had: from so many on, they come by the thousand."""
_RARELY = 20
_NAMED = 20
_EXAMPLES = 3
_Bools = NDArray[np.bool_]


class _Entries(NamedTuple):
    """Entries of the contexts: which row and feature each is of, its size, and whether it is a number."""

    row: Ints
    name: Ints
    size: Floats
    number: _Bools
    names: list[str]


def feature_alarms(table: pa.Table, late: _Bools, *, error: float, least: int) -> list[Alarm]:
    """Return alarms of features that vanished, grew or are new by the thousand.

    A category counts by its name, without its value.

    Args:
        table: [n] decisions with their features in columns, without nulls.
        late: [n] those of the night.
        error: chance of each kind of alarm where nothing changed.
        least: numbers before without which nothing is said to have grown.
    """
    n, m = int(np.count_nonzero(late)), int(np.count_nonzero(~late))
    entries = _entries(table)
    present = np.unique(entries.row * len(entries.names) + entries.name)
    of, later = present % len(entries.names), late[present // len(entries.names)]
    width = len(entries.names)
    now, before = np.bincount(of[later], minlength=width), np.bincount(of[~later], minlength=width)
    gone = (before >= _RARELY) & (now / n <= GONE * before / m)
    gone[gone] = fewer(now[gone], before[gone], n, m) <= error / max(1, width)
    found = [
        Alarm(
            kind="feature_gone",
            subject=entries.names[name],
            text=f"feature {entries.names[name]!r} was in {before[name] / m:.2%} of the contexts, "
            f"is in {now[name] / n:.2%}",
        )
        for name in np.flatnonzero(gone)[:_NAMED].tolist()
    ]
    new = np.flatnonzero((before == 0) & (now > 0))
    bringing = np.unique(present[later & (before[of] == 0)] // width).size if width else 0
    if new.size >= NEW and bringing >= _RARELY:
        shown = ", ".join(repr(entries.names[name][:80]) for name in new[:_EXAMPLES].tolist())
        text = f"{new.size} names of features are new, in {bringing} contexts, among them {shown}"
        found.append(Alarm(kind="feature_names", text=text))
    return found + _grown(entries, late, error / max(1, width), least)


def _grown(entries: _Entries, late: _Bools, level: float, least: int) -> list[Alarm]:
    found: list[Alarm] = []
    rows, numbers = entries.row[entries.number], entries.name[entries.number]
    sizes, later = entries.size[entries.number], late[rows]
    order = np.argsort(numbers, kind="stable")
    enough = np.flatnonzero(np.bincount(numbers[~later], minlength=len(entries.names)) >= least)
    starts, ends = (np.searchsorted(numbers[order], enough, side=side) for side in ("left", "right"))
    for name, start, end in zip(enough.tolist(), starts.tolist(), ends.tolist(), strict=True):
        own = order[start:end]
        now, before = sizes[own[later[own]]], sizes[own[~later[own]]]
        if not now.size or not (limit := GROWN * float(np.quantile(before, 0.99))):
            continue
        beyond = np.array([np.count_nonzero(now > limit)])
        if beyond[0] and more(beyond, np.array([np.count_nonzero(before > limit)]), now.size, before.size)[0] <= level:
            text = f"feature {entries.names[name]!r} passed {limit:.4g}, ten times what it was, in {beyond[0]} contexts"
            found.append(Alarm(kind="feature_grown", subject=entries.names[name], text=text))
    return found[:_NAMED]


def _entries(table: pa.Table) -> _Entries:
    encoded = pc.list_flatten(table["context_names"]).combine_chunks().dictionary_encode()
    sizes = pc.list_value_length(table["context_names"]).to_numpy().astype(np.int64)
    full = encoded.dictionary.to_pylist()
    bases: dict[str, int] = {}
    base = np.array([bases.setdefault(name.partition("=")[0], len(bases)) for name in full], np.int64)
    number = np.array(["=" not in name for name in full], np.bool_)
    code = encoded.indices.to_numpy()
    size = np.abs(pc.list_flatten(table["context_values"]).to_numpy())
    return _Entries(np.repeat(np.arange(len(table)), sizes), base[code], size, number[code], list(bases))
