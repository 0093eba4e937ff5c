"""Events that come again in a log: one counts once.

A row that is there twice is no second observation: counted twice it would make intervals narrower than the data allow.
So a row that says of its event what an earlier one said is left out and counted. One that says something else is
refused, because nobody can tell which of the two was the decision.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa

from decision.errors import FieldError
from pipelines.formats.registry import Found, Reason
from pipelines.formats.repeats import Repeats
from pipelines.formats.rows import numbers_of

_TOLD = ("ts", "context", "action_index", "propensity", "reward")
"""What two rows of one decision agree in."""


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
    events, decisions = Repeats(), Repeats()
    read = 0
    for table in batches:
        kept = np.ones(len(table), np.bool_)
        told = zip(*(table[name].cast(pa.string()).to_pylist() for name in _TOLD), strict=True)
        named = zip(table["event_id"].to_pylist(), table["slot"].to_pylist(), told, strict=True)
        for row, (event_id, slot, said) in enumerate(named):
            if event_id is None:
                continue  # refused by `check_rows`
            event = f"{event_id}\0{slot}"
            fresh, unsaid = events.first(event), decisions.first(f"{event}\0{said}")
            kept[row] = fresh
            if not fresh and unsaid:
                says = "came before with another decision; name a column that tells decisions apart, or none"
                place = f"row {numbers_of(table, read)[row]}: event_id"
                raise FieldError(place, wanted="each event once", got=event_id, says=f"{event_id!r} {says}")
        read += len(table)
        repeated["repeated"] += int((~kept).sum())
        yield table if kept.all() else table.filter(pa.array(kept))
