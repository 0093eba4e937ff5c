"""Which interactions a generation learns from, and which it is judged on.

The rows of the loop's latest days, as of one version of the table; a hash of the event id keeps the same decisions out
of training in every generation, so that a candidate and a champion can both be judged on rows neither has seen. Where
policies with memory are trained, on whole histories, it is a hash of the user.

Of more rows than a training asks for, the same hash picks a sample, day by day, of decisions after which nothing
happened and of all others apart: so rewards that are rare are all kept. A row that was picked at a rate counts 1 / rate
times, and every weighted sum over the sample is on average the sum over all rows (Horvitz and Thompson 1952). Rows to
judge on are never thinned.

Rows are read slice by slice in the order of time, so a window may be larger than memory. The same rows always come in
the same order: they are sorted by what does not depend on files or partitions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

from decision.batch import Floats, Interactions, Ints
from decision.errors import FieldError, SupportError
from decision.generations import ages
from decision.options import SESSION, Range
from decision.reward import Rewards
from decision.split import uniforms_of
from pipelines.interactions.arrays import READ, read_apart
from pipelines.lake.lake import Lake, dataset
from pipelines.progress import Progress, counted, silent
from pipelines.settings import LoopSettings
from pipelines.training.survey import DAY, Slice, is_own, is_rewarded, survey, times_of

pc: Any = pyarrow.compute  # its functions are made when it is imported; type checkers do not see them

MAX_GENERATIONS = 200
SLICE = 65_536
"""Rows that are read at once, about."""

_AHEAD: Any = {"batch_size": 8_192, "batch_readahead": 2, "fragment_readahead": 1}
"""How far a scan reads ahead: by itself, it holds whole files."""
_SETTLED = ("joined", "expired")
_ORDER = ("ts", "event_id", "slot")
_NARROW = (*_ORDER, "reward", "reward_version", "partition", "offset")
_LEARNED = tuple(dict.fromkeys((*_ORDER, *READ, "reward_version")))

Bools = NDArray[np.bool_]


class Day(msgspec.Struct, frozen=True, kw_only=True):
    """A day of the window, in UTC, and which share of its rows is learned from.

    Attributes:
        day: the date, ISO 8601.
        rows: rows under the loop's reward definition.
        rewarded: those of them whose reward is not that of a decision after which nothing happened.
        rate: probability that one of the others is learned from, unless it is held out; then it counts 1 / rate times.
        rewarded_rate: likewise of the rewarded.
    """

    day: str
    rows: int
    rewarded: int
    rate: float
    rewarded_rate: float


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
        sampled: rows that are learned from.
        days: the days that have rows, oldest first, with the rates of the sample.
        reward_low: smallest reward; smaller ones are cut to it.
        reward_high: largest.
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
    sampled: int = 0
    days: list[Day] = []
    reward_low: float = 0.0
    reward_high: float = 1.0


class Window:
    """The rows, oldest first: those to learn from, those to judge on, and where they come from.

    Attributes:
        data: where they come from.
        reward: the range of the rewards, given or learned from the rows that are not held out.
        unread: {event id: why it could not be read} of rows that were yielded with weight 0 so far.
    """

    def __init__(
        self, lake: Lake, loop: LoopSettings, table_version: int, trainings: Sequence[str], progress: Progress
    ) -> None:
        """Take the arguments of `window`, which is where to call."""
        self._data = dataset("interactions", lake.table("interactions", table_version))
        self._loop, self._version, self._progress = loop, table_version, progress
        seen = survey(self._since, loop)
        earlier = sorted({datetime.fromisoformat(end) for end in trainings})
        micros = np.array([_micros(end) for end in earlier], dtype=np.int64)
        self._slices, self._first_day, self._rates = (
            seen.slices(SLICE),
            seen.first_day,
            seen.rates(loop.training, micros),
        )
        self._held: list[tuple[int, NDArray[np.uint8]]] = []  # of each slice the rows, and a bit for each
        self._picked: list[tuple[int, NDArray[np.uint8]]] = []
        ends, days, newest, rewards = (
            np.zeros(micros.size, np.int64),
            np.zeros_like(seen.days),
            dict[int, int](),
            Rewards(),
        )
        rows = held = picked = first = last = 0
        self._least_kept = 1.0
        for cut in counted(self._slices, progress, "parts of the window looked through", total=len(self._slices)):
            part = self._own(cut, (*_NARROW, "subject_id", "pass_probability"))
            out, kept, uniform = self._split(part)
            self._least_kept = float(part["pass_probability"].to_numpy()[out].min(initial=self._least_kept))
            self._held.append((out.size, np.packbits(out)))
            self._picked.append((out.size, np.packbits(kept)))
            at = times_of(part)
            first, last = (first if rows else int(at[0]) if at.size else 0), (int(at[-1]) if at.size else last)
            rows, held, picked = rows + at.size, held + int(out.sum()), picked + int(kept.sum())
            ends += np.searchsorted(at[~out], micros, side="right")
            np.add.at(days, (at // DAY - self._first_day, is_rewarded(part, loop).astype(np.int64)), 1)
            rewards.add(part["reward"].to_numpy()[~out], uniform[~out])
            for entry in part.group_by("partition").aggregate([("offset", "max")]).to_pylist():
                newest[entry["partition"]] = max(newest.get(entry["partition"], 0), entry["offset_max"])
        other = seen.rows - rows
        if not rows:
            version = loop.reward.version
            hint = f"; {other} carry another reward definition than {version!r}: restate them" if other else ""
            raise SupportError(f"loop {loop.name} has no interactions yet{hint}")
        before = [i for i, end in enumerate(micros.tolist()) if end < last][-MAX_GENERATIONS:]
        self.unread: dict[str, str] = {}
        self._ends = ends[before].tolist()
        self.reward: Range = rewards.range(loop.reward.minimum, loop.reward.maximum)
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
            sampled=picked,
            days=[self._day(number, *counts) for number, counts in enumerate(days.tolist()) if sum(counts)],
            reward_low=self.reward.low,
            reward_high=self.reward.high,
        )

    @property
    def rows(self) -> int:
        """How many rows there are to learn from, before the sample is taken."""
        return self.data.rows - self.data.holdout

    @cached_property
    def holdout(self) -> pa.Table:
        """The rows to judge on, all at once."""
        return pa.concat_tables(self.held())

    def held(self, columns: tuple[str, ...] | None = None) -> Iterator[pa.Table]:
        """Yield the rows to judge on, slice by slice; with these `columns` at least, or all."""
        wanted = None if columns is None else (*_NARROW, *columns)
        for number in self._numbers():
            yield self._part(number, wanted, self._held)

    def judged(self, columns: tuple[str, ...] | None = None) -> Iterator[pa.Table]:
        """Yield the rows to judge on as `held`, of a log that was sampled down so few that each stands for as many.

        What was kept the most often is thinned to the share of what was kept the least: so their means are those of
        all decisions, also where the number of rows they would stand for is not looked at.
        """
        for part in self.held(None if columns is None else (*columns, "pass_probability")):
            if self._least_kept == 1.0:
                yield part
                continue
            uniform = uniforms_of(part["event_id"].to_pylist(), f"kept/{self._loop.name}")
            yield part.filter(pa.array(uniform * part["pass_probability"].to_numpy() < self._least_kept))

    def unseen(self, most: int) -> tuple[Interactions, Ints]:
        """Return the newest rows to judge on, at most so many, and their ages, see `ages`; weight 0 if unreadable."""
        tables: list[pa.Table] = []
        places: list[Ints] = []
        left = most
        for number in reversed(range(len(self._slices))):
            held = _unpacked(self._held[number])
            place = self._starts[number] + np.cumsum(~held)[held]
            part = self._part(number, _LEARNED, self._held)
            first = max(len(part) - left, 0)
            tables.append(part.slice(first))
            places.append(place[first:])
            left -= len(part) - first
            if not left:
                break
        log, errors = read_apart(pa.concat_tables(tables[::-1]))
        weight = log.weights.copy()
        weight[list(errors)] = 0.0
        return replace(log, weight=weight), self.ages(np.concatenate(places[::-1]))

    def picked(self) -> Iterator[pa.Table]:
        """Yield the rows to learn from, slice by slice, in the columns that learning needs."""
        for number in self._numbers():
            yield self._part(number, _LEARNED, self._picked)

    def learned(self) -> tuple[Interactions, Ints]:
        """Return the rows to learn from as `chunks` yields them, all at once."""
        return self._weighed(pa.concat_tables(self.picked())), np.concatenate(
            [self._ages_in(number) for number in range(len(self._slices))]
        )

    def chunks(self) -> Iterator[tuple[Interactions, Ints]]:
        """Yield the rows to learn from slice by slice: with their weights, and their age in generations, see `ages`."""
        for number, table in enumerate(self.picked()):
            yield self._weighed(table), self._ages_in(number)

    def ages(self, of: Ints | None = None) -> Ints:
        """Return [k] generations between rows, those at `of` ([k]) or all, and the newest one.

        Rows are those to learn from before the sample is taken.
        """
        return ages(self._ends, self.rows, minimum=self._loop.training.generation_rows, of=of)

    def _numbers(self) -> Iterator[int]:
        total = len(self._slices)
        return counted(range(total), self._progress, "parts of the window read", total=total)

    def _split(self, table: pa.Table) -> tuple[Bools, Bools, Floats]:
        """Return [n] which rows are held out, which are picked, and a uniform number of each of the others."""
        share = self._loop.training.holdout
        keys = table["event_id"]
        if self._loop.policy.oracle == SESSION:  # what is learned of a user's decisions is learned of the user
            keys = pc.coalesce(table["subject_id"], keys)
        uniform = uniforms_of(keys.to_pylist(), holdout_salt(self._loop.name))
        held = uniform < share
        rest = (uniform - share) / (1.0 - share)  # given that a row is not held out, it is uniform again
        return held, ~held & (rest < self._rate(table)), rest

    def _rate(self, table: pa.Table) -> Floats:
        """Return [n] the probability that each row is learned from, unless it is held out."""
        return self._rates[times_of(table) // DAY - self._first_day, is_rewarded(table, self._loop).astype(np.int64)]

    def _weighed(self, table: pa.Table) -> Interactions:
        (log, errors), rate = read_apart(table), self._rate(table)
        if not errors:
            return log if (rate == 1.0).all() else replace(log, weight=log.weights / rate)
        weight = log.weights / rate
        weight[list(errors)] = 0.0
        events = table["event_id"]
        self.unread |= {events[row].as_py(): str(error) for row, error in errors.items()}
        return replace(log, weight=weight)

    def _ages_in(self, number: int) -> Ints:
        held, picked = _unpacked(self._held[number]), _unpacked(self._picked[number])
        return self.ages(self._starts[number] + np.flatnonzero(picked[~held]))

    @cached_property
    def _starts(self) -> list[int]:
        """Rows to learn from, before the sample is taken, in the slices before each."""
        sizes = [size - int(np.unpackbits(bits).sum()) for size, bits in self._held]
        return [0, *np.cumsum(sizes).tolist()]

    def _day(self, number: int, others: int, rewarded: int) -> Day:
        day = date(1970, 1, 1) + timedelta(self._first_day + number)
        rate, rewarded_rate = self._rates[number].tolist()
        return Day(
            day=day.isoformat(), rows=others + rewarded, rewarded=rewarded, rate=rate, rewarded_rate=rewarded_rate
        )

    def _part(
        self, number: int, columns: tuple[str, ...] | None, chosen: list[tuple[int, NDArray[np.uint8]]]
    ) -> pa.Table:
        """Return those rows of a slice that are `chosen`."""
        return self._own(self._slices[number], columns, _unpacked(chosen[number]))

    def _own(self, cut: Slice, columns: tuple[str, ...] | None, chosen: Bools | None = None) -> pa.Table:
        """Return the settled rows of a slice that carry the loop's reward definition, in order; only those `chosen`."""
        table = pa.concat_tables(
            [*self._scan(columns, cut), self._data.schema.empty_table().select(columns or self._data.schema.names)]
        )
        order = pc.sort_indices(table, sort_keys=[(column, "ascending") for column in _ORDER]).to_numpy()[cut.skip :]
        order = order[is_own(table, self._loop)[order]]
        return table.take(pa.array(order if chosen is None else order[chosen]))

    def _since(self, columns: tuple[str, ...], since: int | None) -> Iterator[pa.Table]:
        return self._scan(columns, None if since is None else Slice(since, None))

    def _scan(self, columns: tuple[str, ...] | None, cut: Slice | None) -> Iterator[pa.Table]:
        """Yield the settled rows of a slice or of all times."""
        keep = (pc.field("loop") == self._loop.name) & pc.field("state").isin(_SETTLED)
        if cut is not None:
            keep &= pc.field("ts") >= _scalar(cut.since)
            if cut.until is not None:
                keep &= pc.field("ts") < _scalar(cut.until)
        try:
            names = None if columns is None else list(columns)
            for batch in self._data.scanner(columns=names, filter=keep, **_AHEAD).to_batches():
                yield pa.Table.from_batches([batch])
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
        loop: its training settings say which days, how large a sample, and which share is held out.
        table_version: version of the interactions table; None for the present one.
        trainings: newest decision of each earlier training, ISO 8601; those at or after the newest row are not earlier.
        progress: told of the rows that were read.

    Raises:
        SupportError: there is not a single row, with the reason.
        FieldError: files of that version are gone.
    """
    table_version = lake.version("interactions") if table_version is None else table_version
    return Window(lake, loop, table_version, trainings, progress)


def holdout_salt(loop: str) -> str:
    """Return the salt of the split; see `decision.split`."""
    return f"holdout {loop}"


def _micros(at: datetime) -> int:
    return round(at.timestamp() * 1e6)


def _instant(micros: int) -> datetime:
    return pa.scalar(micros, pa.int64()).cast(pa.timestamp("us", "UTC")).as_py().astimezone(UTC)


def _scalar(micros: int) -> Any:
    return pa.scalar(micros, pa.int64()).cast(pa.timestamp("us", "UTC"))


def _unpacked(bits: tuple[int, NDArray[np.uint8]]) -> Bools:
    return np.unpackbits(bits[1], count=bits[0]).astype(np.bool_)
