from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from decision.draw import draw, seed_of, uniform_of


def test_seed_is_the_same_for_ever() -> None:
    assert seed_of("news", "e1") == 1439935485419712
    assert seed_of("news", "e1", "top") == 8212092864634345


@given(st.text(max_size=20), st.text(max_size=20), st.text(max_size=20))
def test_seeds_have_53_bits_and_give_uniforms_inside_the_unit_interval(loop: str, event: str, slot: str) -> None:
    seed = seed_of(loop, event, slot)
    assert 0 <= seed < 2**53
    assert 0.0 <= uniform_of(seed) < 1.0


def test_largest_and_smallest_seed_stay_inside_the_unit_interval() -> None:
    assert uniform_of(0) == 0.0 < uniform_of(2**53 - 1) < 1.0


def test_ids_that_only_join_alike_have_different_seeds() -> None:
    assert len({seed_of("a", "bc"), seed_of("ab", "c"), seed_of("a", "b", "c")}) == 3


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.integers(0, 2**53 - 1))
def test_draw_never_returns_an_action_without_probability(weights: list[float], seed: int) -> None:
    if sum(weights) <= 0:
        weights[0] = 1.0
    pmf = [w / sum(weights) for w in weights]
    assert pmf[draw(pmf, seed)] > 0


@pytest.mark.statistical
def test_draws_by_event_id_follow_the_pmf() -> None:
    """20,000 fixed ids; a correct draw fails with probability 1e-4 over the choice of ids."""
    pmf = np.array([0.5, 0.01, 0.19, 0.3])
    counts = np.bincount([draw(pmf, seed_of("l", f"event-{i}")) for i in range(20_000)], minlength=4)
    assert stats.chisquare(counts, 20_000 * pmf).pvalue > 1e-4
