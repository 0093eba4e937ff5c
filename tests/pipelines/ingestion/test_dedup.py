from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipelines.ingestion.dedup import Seen

BATCHES = st.lists(st.lists(st.integers(-5, 40), max_size=12), max_size=10)


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
        seen.add(hashes, at)
        known |= here


def test_events_past_the_horizon_are_forgotten_and_later_ones_kept() -> None:
    seen = Seen(800)
    for at in range(0, 4000, 50):
        seen.add(np.array([at], dtype=np.int64), at)
    recent = np.arange(3950 - 800 + 1, 3951, dtype=np.int64)
    assert seen.hits(recent).tolist() == [i for i, value in enumerate(recent.tolist()) if value % 50 == 0]
    assert len(seen) <= 800 / 50 * (1 + 2 / 8) + 1


def test_many_small_batches_stay_in_few_runs() -> None:
    seen = Seen(10**9)
    for value in range(2000):
        seen.add(np.array([value], dtype=np.int64), 1)
    assert len(seen) == 2000
    assert sum(map(len, seen._runs.values())) <= 12
