"""Events that come again in a log: one counts once.

A row that is there twice is no second observation: counted twice it would make intervals narrower than the data allow.
So a row that says of its event what an earlier one said is left out and counted. One that says something else is
refused, because nobody can tell which of the two was the decision.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from decision.errors import FieldError
from pipelines.formats.registry import Found, Reason
from pipelines.formats.rows import numbers_of


def once(found: Found) -> Found:
    """Return a log whose events come once; what is left out for it is told with the rest of what is left out."""
    repeated = Counter[Reason]()
    return found._replace(
        batches=_first(found.batches, repeated), left_out=lambda: Counter(found.left_out()) + repeated
    )


def narrowing(rows: int, repeated: int) -> float:
    """Return by which share intervals would be too narrow if `repeated` of `rows` + `repeated` rows counted again."""
    return 1.0 - math.sqrt(rows / (rows + repeated)) if repeated else 0.0


def _first(batches: Iterable[pa.Table], repeated: Counter[Reason]) -> Iterator[pa.Table]:
    events, decisions = _Seen(), _Seen()
    read = 0
    for table in batches:
        named = list(zip(table["event_id"].to_pylist(), table["slot"].to_pylist(), strict=True))
        fresh = events.add(named)
        other = decisions.add(list(zip(named, _said(table), strict=True))) & ~fresh
        # A row without an event is refused by `check_rows`.
        missing = table["event_id"].is_null().to_numpy()
        if (other & ~missing).any():
            row = int(np.flatnonzero(other & ~missing)[0])
            says = "came before with another decision; name a column that tells decisions apart, or none"
            place, event_id = f"row {numbers_of(table, read)[row]}: event_id", named[row][0]
            raise FieldError(place, wanted="each event once", got=event_id, says=f"{event_id!r} {says}")
        kept = fresh | missing
        read += len(table)
        repeated["repeated"] += int((~kept).sum())
        yield table if kept.all() else table.filter(pa.array(kept))


def _said(table: pa.Table) -> Iterator[tuple[Any, ...]]:
    """Yield what each row says that another of the same decision says, too."""
    numbers = (table[name].to_numpy().astype(np.float64).view(np.int64) for name in ("propensity", "reward"))
    told = (table["ts"].cast(pa.int64()), table["context"], table["action_index"])
    yield from zip(*(column.to_pylist() for column in told), *(bits.tolist() for bits in numbers), strict=True)


class _Seen:
    """Remembers values by hashes of 64 bits: of logs of ten million rows, one in 300,000 has two with the same one."""

    def __init__(self) -> None:
        self._codes: list[NDArray[np.int64]] = []  # each sorted, the largest first

    def add(self, values: Sequence[Any]) -> NDArray[np.bool_]:
        """Remember [n] values and return [n] whether each had not been seen, among those before it as well."""
        codes = np.fromiter(map(hash, values), np.int64, len(values))
        new, at = np.unique(codes, return_index=True)
        for old in self._codes:
            unseen = old[np.minimum(np.searchsorted(old, new), len(old) - 1)] != new
            new, at = new[unseen], at[unseen]
        first = np.zeros(len(values), np.bool_)
        first[at] = True
        while self._codes and self._codes[-1].size <= new.size:
            new = np.union1d(self._codes.pop(), new)
        if new.size:
            self._codes.append(new)
        return first
