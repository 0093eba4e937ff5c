"""The settled rows of a loop as of one version of their table, read in parts by whoever is sent to read them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

from decision.batch import Ints
from decision.errors import FieldError
from pipelines.lake.lake import Lake, dataset
from pipelines.lake.tables import partitions_of
from pipelines.settings import LoopSettings

pc: Any = pyarrow.compute  # its functions are made when it is imported; type checkers do not see them

Bools = NDArray[np.bool_]

IMPORTED = "imported"
"""Reward definition of rows that came with their reward: they count under every definition."""
ORDER = ("ts", "event_id", "slot")
_AHEAD: Any = {"batch_size": 8_192, "batch_readahead": 2, "fragment_readahead": 1}
"""How far a scan reads ahead: by itself, it holds whole files."""
_SETTLED = ("joined", "expired")


class Settled:
    """The rows; pickled as where they are, and opened anew by who gets it.

    Args:
        lake: the tables.
        loop: whose rows.
        version: version of the interactions table.
    """

    def __init__(self, lake: Lake, loop: LoopSettings, version: int) -> None:
        table = lake.table("interactions", version)
        self.loop, self.version, self.lake = loop, version, lake.path
        self._data, self._partitions = dataset("interactions", table), partitions_of(table, loop.name)

    def __reduce__(self) -> Any:
        return _opened, (self.lake, self.loop, self.version)

    @property
    def columns(self) -> list[str]:
        """Names of all columns."""
        return self._data.schema.names

    @property
    def partitions(self) -> list[int]:
        """Log partitions that hold rows of the loop."""
        return self._partitions

    def scan(
        self,
        columns: tuple[str, ...] | None,
        since: int | None = None,
        until: int | None = None,
        partition: int | None = None,
    ) -> Iterator[pa.Table]:
        """Yield rows with since <= ts < until, in microseconds, in any order; of one log partition or of all.

        Raises:
            FieldError: files of that version are gone.
        """
        keep = (pc.field("loop") == self.loop.name) & pc.field("state").isin(_SETTLED)
        if partition is not None:
            keep &= pc.field("partition") == partition
        if since is not None:
            keep &= pc.field("ts") >= _scalar(since)
        if until is not None:
            keep &= pc.field("ts") < _scalar(until)
        try:
            names = None if columns is None else list(columns)
            for batch in self._data.scanner(columns=names, filter=keep, **_AHEAD).to_batches():
                yield pa.Table.from_batches([batch])
        except FileNotFoundError as error:  # an erasure took earlier versions away
            wanted = "a version of the table 'interactions' whose files are kept"
            raise FieldError("version", wanted=wanted, got=self.version) from error

    def own(
        self, columns: tuple[str, ...] | None, since: int, until: int | None, skip: int, chosen: Bools | None = None
    ) -> pa.Table:
        """Return the rows between two times that carry the loop's reward definition, in order.

        Args:
            columns: of the table, those of `ORDER` and ``reward_version`` among them; None for all.
            since: first time, in microseconds.
            until: first time that is left out; None for no end.
            skip: how many rows of any definition are left out at the beginning.
            chosen: [n] which of the rows to return; None for all.
        """
        nothing = self._data.schema.empty_table().select(columns or self._data.schema.names)
        table = pa.concat_tables([*self.scan(columns, since, until), nothing])
        order = pc.sort_indices(table, sort_keys=[(column, "ascending") for column in ORDER]).to_numpy()[skip:]
        order = order[is_own(table, self.loop)[order]]
        return table.take(pa.array(order if chosen is None else order[chosen]))


def _opened(lake: str, loop: LoopSettings, version: int) -> Settled:
    return Settled(Lake(lake), loop, version)


def times_of(table: pa.Table) -> Ints:
    """Return [n] int64 microseconds of the column of times."""
    return pc.cast(pc.cast(table["ts"], pa.timestamp("us", "UTC")), pa.int64()).to_numpy()


def is_own(table: pa.Table, loop: LoopSettings) -> Bools:
    """Return [n] which rows carry the loop's reward definition."""
    versions = pa.array([loop.reward.version, IMPORTED])
    return pc.is_in(table["reward_version"], value_set=versions).to_numpy()


def is_rewarded(table: pa.Table, loop: LoopSettings) -> Bools:
    """Return [n] whose reward is not that of a decision after which nothing happened."""
    return table["reward"].to_numpy() != loop.reward.default


def _scalar(micros: int) -> Any:
    return pa.scalar(micros, pa.int64()).cast(pa.timestamp("us", "UTC"))
