from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decision.decay import Decayed, faded, mean_reward, merge

CONTRIBUTIONS = st.lists(
    st.builds(Decayed, st.just(1.0), st.floats(0, 3), st.floats(-5, 5), st.floats(0, 1e5)), min_size=1, max_size=12
)
HALF_LIFE_S = 3_600.0


def folded(contributions: list[Decayed]) -> Decayed:
    state = Decayed()
    for contribution in contributions:
        state = merge(state, contribution, half_life_s=HALF_LIFE_S)
    return state


def test_a_decision_counts_half_after_one_half_life() -> None:
    old, new = Decayed(1.0, 2.0, 1.0, at=0.0), Decayed(1.0, 0.0, 0.0, at=HALF_LIFE_S)
    assert merge(old, new, half_life_s=HALF_LIFE_S) == (1.5, 1.0, 0.5, HALF_LIFE_S)
    assert faded(old, HALF_LIFE_S, half_life_s=HALF_LIFE_S) == (0.5, 1.0, 0.5, HALF_LIFE_S)


def test_nothing_has_no_weight_and_mean_zero() -> None:
    one = Decayed(1.0, 1.0, 0.25, at=5.0)
    assert merge(Decayed(), one, half_life_s=HALF_LIFE_S) == one == merge(one, Decayed(), half_life_s=HALF_LIFE_S)
    assert merge(Decayed(), Decayed(), half_life_s=HALF_LIFE_S) == Decayed()
    assert faded(Decayed(), 7.0, half_life_s=HALF_LIFE_S)[:3] == (0.0, 0.0, 0.0)
    assert mean_reward(Decayed()) == 0.0


def test_a_time_before_the_sums_own_changes_nothing() -> None:
    state = Decayed(3.0, 2.0, 1.0, at=100.0)
    assert faded(state, 40.0, half_life_s=HALF_LIFE_S) == state


@given(contributions=CONTRIBUTIONS, seed=st.integers(0, 1000), cut=st.integers(0, 12))
def test_sums_are_those_of_the_definition_in_any_order_and_grouping(
    contributions: list[Decayed], seed: int, cut: int
) -> None:
    shuffled = list(contributions)
    random.Random(seed).shuffle(shuffled)
    state = merge(folded(shuffled[cut:]), folded(shuffled[:cut]), half_life_s=HALF_LIFE_S)
    at = max(c.at for c in contributions)
    assert state.at == at
    for field in ("decisions", "outcomes", "rewards"):
        wanted = sum(getattr(c, field) * 2.0 ** (-(at - c.at) / HALF_LIFE_S) for c in contributions)
        assert getattr(state, field) == pytest.approx(wanted, rel=1e-9, abs=1e-9)


@given(contributions=CONTRIBUTIONS, later=st.floats(0, 1e5))
def test_the_mean_reward_does_not_depend_on_when_it_is_read(contributions: list[Decayed], later: float) -> None:
    state = folded(contributions)
    read = faded(state, state.at + later, half_life_s=HALF_LIFE_S)
    assert mean_reward(read) == pytest.approx(mean_reward(state), rel=1e-9, abs=1e-12)


@given(contributions=CONTRIBUTIONS)
def test_a_contribution_that_is_taken_back_leaves_the_rest(contributions: list[Decayed]) -> None:
    first, *rest = contributions
    undone = Decayed(-first.decisions, -first.outcomes, -first.rewards, first.at)
    state = merge(folded(contributions), undone, half_life_s=HALF_LIFE_S)
    alone = faded(folded(rest), state.at, half_life_s=HALF_LIFE_S)
    assert state[:3] == pytest.approx(alone[:3], rel=1e-9, abs=1e-9)
