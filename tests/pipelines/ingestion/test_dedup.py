from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipelines.ingestion.dedup import LONGEST_GAP_MS, Seen, progress

BATCHES = st.lists(st.lists(st.integers(-5, 40), max_size=12), max_size=10)
HOUR = 3_600_000


def add(seen: Seen, hashes: list[int], offset: int, at_ms: int) -> None:
    offsets = np.arange(offset, offset + len(hashes))
    seen.advance(offsets, np.full(len(hashes), at_ms, np.int64))
    seen.add(np.array(hashes, np.int64), offsets)


@given(batches=BATCHES)
def test_hits_are_what_a_set_would_say(batches: list[list[int]]) -> None:
    seen, known = Seen(1000), set[int]()
    for at, batch in enumerate(batches):
        hashes = np.array(batch, dtype=np.int64)
        expected, here = [], set[int]()
        for place, value in enumerate(batch):
            if value in known or value in here:
                expected.append(place)
            here.add(value)
        assert seen.hits(hashes).tolist() == expected
        add(seen, batch, at * 12, at)
        known |= here


def test_events_past_the_horizon_are_forgotten_and_later_ones_kept() -> None:
    seen = Seen(800)
    for at in range(0, 4000, 50):
        add(seen, [at], at, at)
    recent = np.arange(3950 - 800 + 1, 3951, dtype=np.int64)
    assert seen.hits(recent).tolist() == [i for i, value in enumerate(recent.tolist()) if value % 50 == 0]
    assert len(seen) <= 800 / 50 * (1 + 2 / 8) + 1
    assert seen.first is not None
    assert 3950 - 800 * (1 + 2 / 8) <= seen.first <= 3950 - 800


def test_many_small_batches_stay_in_few_runs() -> None:
    seen = Seen(10**9)
    for value in range(2000):
        add(seen, [value], value, 1)
    assert len(seen) == 2000
    assert sum(map(len, seen._runs.values())) <= 12


def test_time_passes_by_the_gaps_between_messages_an_hour_each_at_most() -> None:
    def gone(*hours: float) -> list[float]:
        got, _ = progress((np.array(hours) * HOUR).astype(np.int64), 0)
        return (got / HOUR).tolist()

    assert gone(0.25, 0.5, 0.5, 1.25) == [0.25, 0.5, 0.5, 1.25]
    assert gone(0.5, 0.25, 0.5, 0.25, 0.75) == [0.5, 0.5, 0.5, 0.5, 0.75]  # two clocks that differ a little
    assert gone(48.0, 48.5, 0.5, 1.0) == [1.0, 1.5, 1.5, 2.0]  # ahead, and back again
    assert gone(-48.0, -47.5, 0.0) == [0.0, 0.5, 1.5]


@given(steps=st.lists(st.tuples(st.integers(0, 2 * HOUR), st.sampled_from([0] * 9 + [48, -48])), max_size=60))
def test_an_event_is_known_for_the_horizon_however_the_clock_jumps(steps: list[tuple[int, int]]) -> None:
    """A jump ahead costs an hour of the horizon, nothing else costs any: true time is never behind the log's."""
    seen, at, true, jumps, when = Seen(24 * HOUR), 10**12, 0, 0, list[tuple[int, int]]()
    for number, (gap, jump) in enumerate(steps):
        true += gap
        at += gap + jump * HOUR
        jumps += jump != 0
        add(seen, [number], number, at)
        when.append((true, jumps))
    for number, (then, jumped) in enumerate(when):
        if true - then + (jumps - jumped + 1) * LONGEST_GAP_MS <= 24 * HOUR:
            assert seen.hits(np.array([number], np.int64)).tolist() == [0]


@given(times=st.lists(st.integers(0, 60 * HOUR), min_size=1, max_size=40), cut=st.integers(0, 40))
def test_times_read_at_once_or_one_by_one_come_to_the_same(times: list[int], cut: int) -> None:
    every = np.array(times, np.int64)
    whole, latest = progress(every, times[0])
    first, at = progress(every[:cut], times[0])
    second, last = progress(every[cut:], at)
    assert np.append(first, second + (first[-1] if len(first) else 0)).tolist() == whole.tolist()
    assert last == latest
