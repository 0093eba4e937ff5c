from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decision.decay import Decayed, add, merge

EVENTS = st.lists(st.tuples(st.floats(-5, 5), st.floats(0, 1e5)), min_size=1, max_size=12)


def test_one_half_life_halves_the_weight() -> None:
    state = add(add(Decayed(), 1.0, 0.0, half_life_s=10.0), 0.0, 10.0, half_life_s=10.0)
    assert (state.events, state.total, state.at) == (1.5, 0.5, 10.0)
    assert state.mean == pytest.approx(1 / 3)


def test_mean_of_nothing_is_zero() -> None:
    assert Decayed().mean == 0.0


@given(events=EVENTS, order=st.randoms(use_true_random=False))
def test_order_of_arrival_does_not_matter(events, order) -> None:
    shuffled = list(events)
    order.shuffle(shuffled)
    a = b = Decayed()
    for value, at in sorted(events, key=lambda event: event[1]):
        a = add(a, value, at, half_life_s=3_600.0)
    for value, at in shuffled:
        b = add(b, value, at, half_life_s=3_600.0)
    assert b.at == a.at
    assert b.events == pytest.approx(a.events, rel=1e-9)
    assert b.total == pytest.approx(a.total, rel=1e-9, abs=1e-9)


@given(left=EVENTS, right=EVENTS)
def test_merged_shards_are_the_whole(left, right) -> None:
    def fold(events):
        state = Decayed()
        for value, at in events:
            state = add(state, value, at, half_life_s=100.0)
        return state

    merged = merge(fold(left), fold(right), half_life_s=100.0)
    whole = fold(left + right)
    assert merged.events == pytest.approx(whole.events, rel=1e-9)
    assert merged.total == pytest.approx(whole.total, rel=1e-9, abs=1e-9)
