"""Which interactions a generation learns from, and which it is judged on.

The latest rows of the loop, as of one version of the table; a hash of the event id keeps the same decisions out of
training in every generation, so that a candidate and a champion can both be judged on rows neither has seen.

Rows are read slice by slice in the order of time, so a window may be larger than memory. The same rows always come in
the same order: they are sorted by what does not depend on files or partitions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

from decision.batch import Interactions, Ints
from decision.errors import FieldError, SupportError
from decision.generations import ages
from decision.split import in_share
from pipelines.interactions.arrays import to_interactions
from pipelines.lake.lake import Lake, dataset
from pipelines.progress import Progress, counted, silent
from pipelines.settings import LoopSettings

pc: Any = pyarrow.compute  # its functions are made when it is imported; type checkers do not see them

MAX_GENERATIONS = 200
SLICE = 65_536
"""Rows that are read at once; more where more were decided in the same microsecond."""

IMPORTED = "imported"
"""Reward definition of rows that came with their reward: they count under every definition."""

_AHEAD: Any = {"batch_size": 8_192, "batch_readahead": 2, "fragment_readahead": 1}
"""How far a scan reads ahead: by itself, it holds whole files."""
_SETTLED = ("joined", "expired")
_ORDER = ("ts", "event_id", "slot")
_NARROW = (*_ORDER, "reward_version", "partition", "offset")


class Data(msgspec.Struct, frozen=True, kw_only=True):
    """Where the rows come from; goes into the manifest.

    Attributes:
        table_version: version of the interactions table.
        rows: rows in the window.
        holdout: those of them kept out of training.
        offsets: highest log offset read, by partition.
        first_ts: time of the oldest decision, ISO 8601 UTC.
        last_ts: time of the newest.
        reward_version: the reward definition of the rows, imported ones apart.
        other_definitions: settled rows left out because they carry another one.
        trainings: newest decision of each earlier training, ISO 8601 UTC, oldest first: where generations end.
    """

    table_version: int
    rows: int
    holdout: int
    offsets: dict[str, int]
    first_ts: str
    last_ts: str
    reward_version: str
    other_definitions: int
    trainings: list[str] = []


class _Slice(NamedTuple):
    """Rows with since <= ts < until, in microseconds, the first `skip` of them left out; None for no end."""

    since: int
    until: int | None
    skip: int = 0


class Window:
    """The rows, oldest first: those to learn from, those to judge on, and where they come from.

    Attributes:
        data: where they come from.
    """

    def __init__(
        self, lake: Lake, loop: LoopSettings, table_version: int, trainings: Sequence[str], progress: Progress
    ) -> None:
        """Take the arguments of `window`, which is where to call."""
        self._data = dataset("interactions", lake.table("interactions", table_version))
        self._loop, self._version, self._progress = loop, table_version, progress
        self._slices, self._settled = self._cut()
        self._held: list[NDArray[np.uint8]] = []  # a bit for each row of a slice that counts
        earlier = sorted({datetime.fromisoformat(end) for end in trainings})
        micros = np.array([_micros(end) for end in earlier], dtype=np.int64)
        seen = np.zeros(micros.size, np.int64)
        newest: dict[int, int] = {}
        rows = held = first = last = 0
        for cut in counted(self._slices, progress, "parts of the window looked through", total=len(self._slices)):
            own = self._own(cut, _NARROW)
            out = in_share(own["event_id"].to_pylist(), f"holdout {loop.name}", loop.training.holdout)
            at = _times(own)
            self._held.append(np.packbits(out))
            first, last = (first if rows else int(at[0]) if at.size else 0), (int(at[-1]) if at.size else last)
            rows, held = rows + at.size, held + int(out.sum())
            seen += np.searchsorted(at[~out], micros, side="right")
            for entry in own.group_by("partition").aggregate([("offset", "max")]).to_pylist():
                newest[entry["partition"]] = max(newest.get(entry["partition"], 0), entry["offset_max"])
        other = self._settled - rows
        if not rows:
            version = loop.reward.version
            hint = f"; {other} carry another reward definition than {version!r}: restate them" if other else ""
            raise SupportError(f"loop {loop.name} has no interactions yet{hint}")
        before = [i for i, end in enumerate(micros.tolist()) if end < last][-MAX_GENERATIONS:]
        self._ends = seen[before].tolist()
        self.data = Data(
            table_version=table_version,
            rows=rows,
            holdout=held,
            offsets={str(partition): newest[partition] for partition in sorted(newest)},
            first_ts=_instant(first).isoformat(),
            last_ts=_instant(last).isoformat(),
            reward_version=loop.reward.version,
            other_definitions=other,
            trainings=[earlier[i].isoformat() for i in before],
        )

    @property
    def rows(self) -> int:
        """How many rows there are to learn from."""
        return self.data.rows - self.data.holdout

    @cached_property
    def training(self) -> pa.Table:
        """The rows to learn from, all at once."""
        return pa.concat_tables(self._part(number, held=False) for number in self._numbers())

    @cached_property
    def holdout(self) -> pa.Table:
        """The rows to judge on."""
        return pa.concat_tables(self._part(number, held=True) for number in self._numbers())

    def chunks(self) -> Iterator[tuple[Interactions, Ints]]:
        """Yield the rows to learn from slice by slice, each with its age in generations, see `ages`."""
        first = 0
        for number in self._numbers():
            chunk = to_interactions(self._part(number, held=False))
            of = np.arange(first, first + len(chunk), dtype=np.int64)
            first += len(chunk)
            yield chunk, self.ages(of)

    def _numbers(self) -> Iterator[int]:
        total = len(self._slices)
        return counted(range(total), self._progress, "parts of the window read", total=total)

    def ages(self, of: Ints | None = None) -> Ints:
        """Return [k] generations between rows to learn from, those at `of` ([k]) or all, and the newest one."""
        return ages(self._ends, self.rows, minimum=self._loop.training.generation_rows, of=of)

    def _cut(self) -> tuple[list[_Slice], int]:
        """Return the slices of the latest settled rows, and how many rows these are."""
        times = np.sort(_times(self._scan(("ts",), None)))
        start = max(0, times.size - self._loop.training.window) if self._loop.training.window else 0
        begins = np.unique(times[start::SLICE]).tolist()
        first = int(np.searchsorted(times, begins[0], side="left")) if begins else 0
        skips = [start - first, *[0] * len(begins)]
        cuts = zip(begins, [*begins[1:], None], skips, strict=False)
        return [_Slice(*cut) for cut in cuts], times.size - start

    def _part(self, number: int, *, held: bool) -> pa.Table:
        """Return the rows of a slice to judge on or to learn from."""
        own = self._own(self._slices[number], None)
        bits = np.unpackbits(self._held[number], count=len(own))
        return own.filter(pa.array(bits.astype(np.bool_) == held))

    def _own(self, cut: _Slice, columns: tuple[str, ...] | None) -> pa.Table:
        """Return the settled rows of a slice that carry the loop's reward definition, in the order of time."""
        table = self._scan(columns, cut).sort_by([(column, "ascending") for column in _ORDER]).slice(cut.skip)
        versions = pa.array([self._loop.reward.version, IMPORTED])
        return table.filter(pc.is_in(table["reward_version"], value_set=versions))

    def _scan(self, columns: tuple[str, ...] | None, cut: _Slice | None) -> pa.Table:
        """Return the settled rows of a slice or of all times."""
        keep = (pc.field("loop") == self._loop.name) & pc.field("state").isin(_SETTLED)
        if cut is not None:
            keep &= pc.field("ts") >= _scalar(cut.since)
            if cut.until is not None:
                keep &= pc.field("ts") < _scalar(cut.until)
        try:
            names = None if columns is None else list(columns)
            return self._data.scanner(columns=names, filter=keep, **_AHEAD).to_table()
        except FileNotFoundError as error:  # an erasure took earlier versions away
            wanted = "a version of the table 'interactions' whose files are kept"
            raise FieldError("version", wanted=wanted, got=self._version) from error


def window(
    lake: Lake,
    loop: LoopSettings,
    table_version: int | None = None,
    *,
    trainings: Sequence[str] = (),
    progress: Progress = silent,
) -> Window:
    """Return the loop's window.

    Args:
        lake: the tables.
        loop: its training settings say how many rows, and which share is held out.
        table_version: version of the interactions table; None for the present one.
        trainings: newest decision of each earlier training, ISO 8601; those at or after the newest row are not earlier.
        progress: told of the rows that were read.

    Raises:
        SupportError: there is not a single row, with the reason.
        FieldError: files of that version are gone.
    """
    table_version = lake.version("interactions") if table_version is None else table_version
    return Window(lake, loop, table_version, trainings, progress)


def _times(table: pa.Table) -> Ints:
    """Return [n] int64 microseconds of the column of times."""
    return pc.cast(pc.cast(table["ts"], pa.timestamp("us", "UTC")), pa.int64()).to_numpy()


def _micros(at: datetime) -> int:
    return round(at.timestamp() * 1e6)


def _instant(micros: int) -> datetime:
    return pa.scalar(micros, pa.int64()).cast(pa.timestamp("us", "UTC")).as_py().astimezone(UTC)


def _scalar(micros: int) -> Any:
    return pa.scalar(micros, pa.int64()).cast(pa.timestamp("us", "UTC"))
