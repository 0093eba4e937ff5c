"""Which interactions a generation learns from, and which it is judged on.

The rows of the loop's latest days, as of one version of the table; a hash of the event id keeps the same decisions out
of training in every generation, so that a candidate and a champion can both be judged on rows neither has seen. Where
policies with memory are trained, on whole histories, it is a hash of the user.

Of more rows than a training asks for, the same hash picks a sample, day by day, of decisions after which nothing
happened and of all others apart: so rewards that are rare are all kept. A row that was picked at a rate counts 1 / rate
times, and every weighted sum over the sample is on average the sum over all rows (Horvitz and Thompson 1952). Rows to
judge on are never thinned.

Rows are read slice by slice in the order of time, so a window may be larger than memory. The same rows always come in
the same order: they are sorted by what does not depend on files or partitions. A window is sent to other processes as
where its rows are and which of them are held out or learned from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute

from decision.batch import Floats, Interactions, Ints
from decision.errors import FieldError, SupportError
from decision.generations import ages
from decision.options import Range
from decision.split import uniforms_of
from pipelines.engines.engine import Engine, LocalEngine
from pipelines.interactions.arrays import READ, read_apart
from pipelines.interactions.observed import evenly
from pipelines.interactions.outcomes import values_of
from pipelines.lake.lake import Lake
from pipelines.progress import Progress, counted, silent
from pipelines.settings import LoopSettings
from pipelines.training.sample import NARROW, Bits, Looked, Sample, look_through, merged, unpacked
from pipelines.training.settled import ORDER, Settled
from pipelines.training.survey import survey

pc: Any = pyarrow.compute  # its functions are made when it is imported; type checkers do not see them

MAX_GENERATIONS = 200
SLICE = 65_536
"""Rows that are read at once, about."""

_LEARNED = tuple(dict.fromkeys((*ORDER, *READ, "reward_version")))


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
        self,
        lake: Lake,
        loop: LoopSettings,
        table_version: int,
        trainings: Sequence[str],
        progress: Progress,
        engine: Engine,
    ) -> None:
        """Take the arguments of `window`, which is where to call."""
        self._loop, self._progress = loop, progress
        self._settled = Settled(lake, loop, table_version)
        seen = survey(self._settled, engine)
        earlier = sorted({datetime.fromisoformat(end) for end in trainings})
        micros = np.array([_micros(end) for end in earlier], dtype=np.int64)
        slices, rates = seen.slices(SLICE), seen.rates(loop.training, micros)
        self._sample = Sample(self._settled, slices, seen.first_day, rates, micros)
        looked = self._look(engine)
        held = picked = rows = 0
        if looked is not None:
            rows = sum(size for size, _ in looked.held.values())
            held = sum(int(unpacked(bits).sum()) for bits in looked.held.values())
            picked = sum(int(unpacked(bits).sum()) for bits in looked.picked.values())
        other = seen.rows - rows
        if looked is None or looked.first is None or looked.last is None:
            version = loop.reward.version
            hint = f"; {other} carry another reward definition than {version!r}: restate them" if other else ""
            raise SupportError(f"loop {loop.name} has no interactions yet{hint}")
        self._held = [looked.held[number] for number in range(len(slices))]
        self._picked = [looked.picked[number] for number in range(len(slices))]
        self._least_kept = looked.least_kept
        last = looked.last
        before = [i for i, end in enumerate(micros.tolist()) if end < last][-MAX_GENERATIONS:]
        self.unread: dict[str, str] = {}
        self._ends = looked.ends[before].tolist()
        self.reward: Range = looked.rewards.range(loop.reward.minimum, loop.reward.maximum)
        self._added: dict[str, float] = {}
        self.data = Data(
            table_version=table_version,
            rows=rows,
            holdout=held,
            offsets={str(partition): looked.newest[partition] for partition in sorted(looked.newest)},
            first_ts=_instant(looked.first).isoformat(),
            last_ts=_instant(last).isoformat(),
            reward_version=loop.reward.version,
            other_definitions=other,
            trainings=[earlier[i].isoformat() for i in before],
            sampled=picked,
            days=[self._day(number, *counts) for number, counts in enumerate(looked.days.tolist()) if sum(counts)],
            reward_low=self.reward.low,
            reward_high=self.reward.high,
        )

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_progress": silent}

    def _look(self, engine: Engine) -> Looked | None:
        total, done = len(self._sample.slices), 0

        def seen(found: Looked) -> None:
            nonlocal done
            done += len(found.held)
            self._progress("parts of the window looked through", done, total)

        self._progress("parts of the window looked through", 0, total)
        return engine.total(look_through, merged, self._sample, range(total), seen)

    @property
    def rows(self) -> int:
        """How many rows there are to learn from, before the sample is taken."""
        return self.data.rows - self.data.holdout

    @property
    def slices(self) -> range:
        """Numbers of the slices, oldest first."""
        return range(len(self._held))

    @cached_property
    def holdout(self) -> pa.Table:
        """The rows to judge on, all at once."""
        return pa.concat_tables(self.held())

    def held(self, columns: tuple[str, ...] | None = None) -> Iterator[pa.Table]:
        """Yield the rows to judge on, slice by slice; with these `columns` at least, or all."""
        wanted = None if columns is None else (*NARROW, *columns)
        for number in self._numbers():
            yield self._part(number, wanted, self._held)

    def judged(self, columns: tuple[str, ...] | None = None) -> Iterator[pa.Table]:
        """Yield the rows to judge on as `held`, of a log that was sampled down so few that each stands for as many.

        What was kept the most often is thinned to the share of what was kept the least: so their means are those of
        all decisions, also where the number of rows they would stand for is not looked at.
        """
        for number in self._numbers():
            yield self.judged_in(number, columns)

    def judged_in(self, number: int, columns: tuple[str, ...] | None = None) -> pa.Table:
        """Return the rows of slice `number` of `slices` that `judged` yields."""
        part = self._part(number, None if columns is None else (*NARROW, *columns, "pass_probability"), self._held)
        if self._least_kept == 1.0:
            return part
        uniform = uniforms_of(part["event_id"].to_pylist(), f"kept/{self._loop.name}")
        return part.filter(pa.array(uniform * part["pass_probability"].to_numpy() < self._least_kept))

    def unseen(self, most: int) -> tuple[Interactions, Ints]:
        """Return the newest rows to judge on, at most so many, and their ages, see `ages`; weight 0 if unreadable."""
        tables: list[pa.Table] = []
        places: list[Ints] = []
        left = most
        for number in reversed(self.slices):
            held = unpacked(self._held[number])
            place = self._starts[number] + np.cumsum(~held)[held]
            part = self._part(number, self._columns, self._held)
            first = max(len(part) - left, 0)
            tables.append(part.slice(first))
            places.append(place[first:])
            left -= len(part) - first
            if not left:
                break
        log, errors = self._read(pa.concat_tables(tables[::-1]))
        weight = log.weights.copy()
        weight[list(errors)] = 0.0
        return replace(log, weight=weight), self.ages(np.concatenate(places[::-1]))

    def picked(self) -> Iterator[pa.Table]:
        """Yield the rows to learn from, slice by slice, in the columns that learning needs."""
        for number in self._numbers():
            yield self._part(number, self._columns, self._picked)

    def sampled(self, columns: tuple[str, ...], most: int) -> Iterator[tuple[pa.Table, Floats]]:
        """Yield rows to learn from slice by slice, about `most` in all, and how many decisions each one stands for.

        An even share of them, by their offsets.
        """
        share = min(1.0, most / max(1, self.data.sampled))
        for number in self._numbers():
            part = self._part(number, tuple(dict.fromkeys((*NARROW, *columns, "pass_probability"))), self._picked)
            if share < 1.0:
                part = part.filter(pa.array(evenly(part["offset"].to_numpy(), share)))
            yield part, 1.0 / (self._sample.rate(part) * part["pass_probability"].to_numpy() * share)

    def learned(self) -> tuple[Interactions, Ints]:
        """Return the rows to learn from as `chunks` yields them, all at once."""
        return self._weighed(pa.concat_tables(self.picked())), np.concatenate(
            [self._ages_in(number) for number in self.slices]
        )

    def beside(self) -> Floats:
        """Return [a, n] values of the loop's auxiliary outcomes, in the order of `learned`."""
        parts = [self._beside(table) for table in self.picked()]
        return np.concatenate(parts, axis=1)

    def adding(self, factors: Mapping[str, float], reward: Range) -> Window:
        """Return the same rows with other rewards to learn from; those to judge on keep theirs.

        Args:
            factors: what the value of each auxiliary outcome is multiplied by, by its name; left out for 0.
            reward: range of the sums.
        """
        more = copy(self)
        more._added, more.reward, more.unread = dict(factors), reward, {}
        return more

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
        return counted(self.slices, self._progress, "parts of the window read", total=len(self.slices))

    def _weighed(self, table: pa.Table) -> Interactions:
        (log, errors), rate = self._read(table), self._sample.rate(table)
        if not errors:
            return log if (rate == 1.0).all() else replace(log, weight=log.weights / rate)
        weight = log.weights / rate
        weight[list(errors)] = 0.0
        events = table["event_id"]
        self.unread |= {events[row].as_py(): str(error) for row, error in errors.items()}
        return replace(log, weight=weight)

    @property
    def _columns(self) -> tuple[str, ...]:
        return (*_LEARNED, "outcomes") if self._loop.reward.auxiliary else _LEARNED

    def _read(self, table: pa.Table) -> tuple[Interactions, dict[int, FieldError]]:
        """Return rows as arrays, with what is added to their rewards, and which cannot be read."""
        log, errors = read_apart(table)
        if not any(self._added.values()):
            return log, errors
        factor = [self._added.get(one.outcome, 0.0) for one in self._loop.reward.auxiliary]
        return replace(log, reward=log.reward + np.array(factor) @ self._beside(table)), errors

    def _beside(self, table: pa.Table) -> Floats:
        auxiliary = self._loop.reward.auxiliary
        return np.stack([values_of(table, one.outcome, one.aggregation) for one in auxiliary])

    def _ages_in(self, number: int) -> Ints:
        held, picked = unpacked(self._held[number]), unpacked(self._picked[number])
        return self.ages(self._starts[number] + np.flatnonzero(picked[~held]))

    @cached_property
    def _starts(self) -> list[int]:
        """Rows to learn from, before the sample is taken, in the slices before each."""
        sizes = [size - int(np.unpackbits(bits).sum()) for size, bits in self._held]
        return [0, *np.cumsum(sizes).tolist()]

    def _day(self, number: int, others: int, rewarded: int) -> Day:
        day = date(1970, 1, 1) + timedelta(self._sample.first_day + number)
        rate, rewarded_rate = self._sample.rates[number].tolist()
        return Day(
            day=day.isoformat(), rows=others + rewarded, rewarded=rewarded, rate=rate, rewarded_rate=rewarded_rate
        )

    def _part(self, number: int, columns: tuple[str, ...] | None, chosen: list[Bits]) -> pa.Table:
        """Return those rows of a slice that are `chosen`."""
        return self._settled.own(columns, *self._sample.slices[number], unpacked(chosen[number]))


def window(
    lake: Lake,
    loop: LoopSettings,
    table_version: int | None = None,
    *,
    trainings: Sequence[str] = (),
    progress: Progress = silent,
    engine: Engine | None = None,
) -> Window:
    """Return the loop's window.

    Args:
        lake: the tables.
        loop: its training settings say which days, how large a sample, and which share is held out.
        table_version: version of the interactions table; None for the present one.
        trainings: newest decision of each earlier training, ISO 8601; those at or after the newest row are not earlier.
        progress: told of the rows that were read.
        engine: who looks through the parts of the log; None for this process, one after the other.

    Raises:
        SupportError: there is not a single row, with the reason.
        FieldError: files of that version are gone.
    """
    table_version = lake.version("interactions") if table_version is None else table_version
    return Window(lake, loop, table_version, trainings, progress, engine or LocalEngine(1))


def _micros(at: datetime) -> int:
    return round(at.timestamp() * 1e6)


def _instant(micros: int) -> datetime:
    return pa.scalar(micros, pa.int64()).cast(pa.timestamp("us", "UTC")).as_py().astimezone(UTC)
