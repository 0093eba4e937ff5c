"""The actions a loop offered: their ids, numbered, with several features each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
from deltalake import DeltaTable

from decision.batch import Floats, Ints
from decision.errors import FieldError
from pipelines.lake.features import flat_actions
from pipelines.lake.lake import Lake, dataset
from pipelines.trajectories.histories import settled

pc: Any = pyarrow.compute  # its functions are made when it is imported; type checkers do not see them

MAX_ACTIONS = 100_000
MAX_FEATURES = 1_000

_AHEAD: Any = {"batch_size": 8_192, "batch_readahead": 2, "fragment_readahead": 1}


@dataclass(frozen=True, slots=True, eq=False)
class Catalogue:
    """Actions by number.

    Attributes:
        ids: [A] ids, ascending.
        names: [d] names of their features, ascending.
        features: [A, d] each action's features, the mean over the decisions that offered it; 0 where it has none.
    """

    ids: Sequence[str]
    names: Sequence[str]
    features: Floats

    def __post_init__(self) -> None:
        if self.features.shape != (len(self.ids), len(self.names)) or len(set(self.ids)) != len(self.ids):
            wanted = f"[{len(self.ids)}, {len(self.names)}] features of ids that differ"
            raise FieldError("catalogue", wanted=wanted, got=self.features.shape)

    def __len__(self) -> int:
        return len(self.ids)

    def codes(self, ids: pa.Array) -> Ints:
        """Return [m] the numbers of action ids.

        Raises:
            FieldError: one is not in the catalogue.
        """
        names = ids.dictionary_encode()
        known = {name: code for code, name in enumerate(self.ids)}
        missing = [name for name in names.dictionary.to_pylist() if name not in known]
        if missing:
            raise FieldError("catalogue", wanted="every action that was offered", got=missing[0])
        numbers = np.array([known[name] for name in names.dictionary.to_pylist()], np.int64)
        return numbers[names.indices.to_numpy()] if len(ids) else np.zeros(0, np.int64)


def catalogue_of(
    lake: Lake,
    loop: str,
    *,
    version: int | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> Catalogue:
    """Return all actions that settled decisions of `loop` with since <= ts < until offered.

    Args:
        lake: the tables.
        loop: name of the loop.
        version: version of the interactions table; None for the present one.
        since: earliest time of decision.
        until: first time of decision that is left out.

    Raises:
        FieldError: more than 100,000 ids or 1,000 features.
    """

    def reading(table: DeltaTable) -> Catalogue:
        data = dataset("interactions", table)
        scanner = data.scanner(["action_ids", "actions"], filter=settled(loop, since, until), **_AHEAD)
        return gathered_catalogue(pa.Table.from_batches([batch]) for batch in scanner.to_batches() if batch.num_rows)

    return lake.read("interactions", reading, version)


def gathered_catalogue(tables: Iterable[pa.Table]) -> Catalogue:
    """Return the actions in the columns ``action_ids`` and ``actions`` of `tables`; errors as `catalogue_of`."""
    counts: defaultdict[str, float] = defaultdict(float)
    sums: defaultdict[str, defaultdict[str, float]] = defaultdict(lambda: defaultdict(float))
    names = set[str]()
    for rows in tables:
        for ids, text, count in _distinct(rows):
            features = flat_actions(pa.array([text]), np.array([len(ids)]))
            for action, row in zip(ids, features.rows, strict=True):
                counts[action] += count
                for name, value in row.items():
                    sums[action][name] += count * value
                    names.add(name)
            if len(counts) > MAX_ACTIONS:
                raise FieldError("action_ids", wanted=f"at most {MAX_ACTIONS} that differ", got=len(counts))
            if len(names) > MAX_FEATURES:
                raise FieldError("actions", wanted=f"at most {MAX_FEATURES} features that differ", got=len(names))
    ids, kept = sorted(counts), sorted(names)
    found = np.array([[sums[action][name] / counts[action] for name in kept] for action in ids])
    return Catalogue(ids, kept, found.reshape(len(ids), len(kept)))


def _distinct(rows: pa.Table) -> list[tuple[list[str], str, int]]:
    """Return (ids, JSON text, how many rows) of the sets of actions that differ."""
    offered = rows["action_ids"].combine_chunks()
    # Ids may hold any character but that which is written for the end of a text.
    keys = pa.table({"ids": pc.binary_join(offered, "\0"), "actions": rows["actions"], "row": np.arange(len(rows))})
    groups = keys.group_by(["ids", "actions"]).aggregate([("row", "min"), ("row", "count")])
    first = groups["row_min"].to_numpy()
    some = zip(offered.take(pa.array(first)).to_pylist(), groups["actions"].to_pylist(), strict=True)
    return [(ids, text, n) for (ids, text), n in zip(some, groups["row_count"].to_pylist(), strict=True)]
