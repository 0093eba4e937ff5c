"""What a policy remembers of a user: made of what was known at a time, whatever way it is computed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decision.join import RewardRule
from decision.memory import (
    BLOCK,
    Mark,
    Report,
    Turn,
    changes,
    first_of,
    gone_on,
    known_at,
    mark_before,
    memories,
    memory,
    response,
)
from tests.decision.oracles.test_session import ACTIONS, oracle

ORACLE = oracle()
RULE = RewardRule(outcome="reward", window_us=1_000, default=0.25, aggregation="sum", minimum=0.0, maximum=8.0)


def rule(**changes: Any) -> RewardRule:
    given: dict[str, Any] = {name: getattr(RULE, name) for name in RULE.__slots__}
    return RewardRule(**(given | changes))


def turn(at: int, *reports: Report, action: str = "d6", deferred: bool = False) -> Turn:
    return Turn(at, f"e{at}", action, deferred, reports)


def said(value: float, at: int, name: str = "reward", known: int | None = None) -> Report:
    return Report(name, value, at, at if known is None else known)


def test_a_value_above_the_maximum_counts_as_the_maximum() -> None:
    assert response(turn(0, said(40.0, 5)), RULE, 10) == 8.0
    assert response(turn(0, said(-40.0, 5)), RULE, 10) == 0.0


def test_reports_are_aggregated_as_the_loop_says() -> None:
    shown = turn(0, said(3.0, 5), said(1.0, 9))
    found = {kind: response(shown, rule(aggregation=kind), 10) for kind in ("sum", "latest", "earliest", "max", "mean")}
    assert found == {"sum": 4.0, "latest": 1.0, "earliest": 3.0, "max": 3.0, "mean": 2.0}
    assert response(shown, RULE, 8) == 3.0  # the other is not known yet


def test_only_the_rewards_own_outcome_counts() -> None:
    shown = turn(0, said(3.0, 5, "click"))
    assert response(shown, RULE, 10) is None
    assert response(shown, rule(outcome="click"), 10) == 3.0


def test_nothing_reported_is_the_default_once_the_window_is_over_and_what_comes_later_never_counts() -> None:
    shown = turn(0, said(3.0, 1_001), said(4.0, 500, known=1_001))
    assert response(shown, RULE, 999) is None
    assert response(shown, RULE, 1_000) == response(shown, RULE, 10**9) == 0.25
    assert response(turn(0, said(3.0, 1_000)), RULE, 1_000) == 3.0


def test_a_deferred_turn_counts_once_it_was_activated() -> None:
    activated = turn(0, said(3.0, 5), said(1.0, 9, "activation"), deferred=True)
    assert [response(activated, RULE, at) for at in (5, 9)] == [None, 3.0]
    rewarded = turn(0, said(3.0, 5), deferred=True)
    assert response(rewarded, RULE, 10**9) is None
    assert [response(rewarded, rule(activates=True), at) for at in (4, 5)] == [None, 3.0]


def test_what_is_before_its_decision_never_counts() -> None:
    shown = turn(2_000_000, said(3.0, 999_999, known=2_000_000))
    assert response(shown, RULE, 2_000_500) is None


def test_what_may_not_count_does_not_take_the_place_of_a_later_report() -> None:
    early, told, again = (Report("reward", value, at, 0, "k") for value, at in ((1.0, -1_000_001), (3.0, 5), (4.0, 6)))
    assert response(turn(0, early, told, again), RULE, 10) == 3.0


def test_a_report_is_known_when_it_happened_and_came_in() -> None:
    assert known_at(100, 50_000, 130, 50_000) == 130  # a log that was filled later at one go
    assert known_at(100, 100, 130, 90_000) == 90_000  # one that came in long after


@pytest.mark.parametrize("value", [1e300, 1.7e308, -1e300])
def test_an_outrageous_outcome_moves_nothing_for_good(value: float) -> None:
    wide = rule(minimum=-1.7e308, maximum=1.7e308)
    turns = [turn(at, said(value if at == 0 else 3.0, at + 1)) for at in range(0, 160, 2)]
    others = [turn(0, said(3.0, 1)), *turns[1:]]
    apart = [
        float(
            np.abs(
                ORACLE.logits(memory(ORACLE, turns[:n], wide, 200))
                - ORACLE.logits(memory(ORACLE, others[:n], wide, 200))
            ).max()
        )
        for n in (1, 80)
    ]
    assert 0.1 < apart[0] < 100.0
    assert apart[1] < 1e-4
    both = memory(ORACLE, [turn(0, said(1e308, 1), said(1e308, 2))], rule(maximum=float("inf")), 10)
    assert np.isfinite(both).all()


def test_the_latest_hundred_turns_count_or_more() -> None:
    assert [first_of(n) for n in (0, 99, 199, 200, 299, 300)] == [0, 0, 0, BLOCK, BLOCK, 2 * BLOCK]
    turns = [turn(at, said(float(at % 5), at)) for at in range(0, 5 * BLOCK, 2)]
    whole = memory(ORACLE, turns, RULE, 10**6)
    assert np.array_equal(whole, memory(ORACLE, turns[BLOCK:], RULE, 10**6, before=BLOCK))
    assert np.array_equal(whole, memory(ORACLE, turns[50:], RULE, 10**6, before=50))


NAMES = st.sampled_from(["reward", "reward", "click", "activation"])
REPORTS = st.lists(
    st.builds(
        lambda name, value, after, late: (name, value, after, late),
        NAMES,
        st.sampled_from([0.0, 1.0, 2.5, 40.0, -3.0, 1e300]),
        st.integers(0, 1_400),
        st.sampled_from([0, 0, 300, 5_000]),
    ),
    max_size=3,
)
TURNS = st.lists(
    st.tuples(st.integers(0, 400), st.sampled_from([*ACTIONS, "new"]), st.booleans(), REPORTS), max_size=12
)
RULES = st.builds(
    lambda kind, outcome, window, on: rule(aggregation=kind, outcome=outcome, window_us=window, activates=on),
    st.sampled_from(["sum", "latest", "earliest", "min", "max", "mean"]),
    st.sampled_from(["reward", "click"]),
    st.sampled_from([1, 300, 1_000]),
    st.booleans(),
)


def made(drawn: list[tuple[int, str, bool, list[tuple[str, float, int, int]]]]) -> list[Turn]:
    """Return turns some time apart, some at once; a third of the deferred ones count so only."""
    out: list[Turn] = []
    at = 10_000_000
    for number, (gap, action, deferred, reports) in enumerate(drawn):
        at += gap
        said = [Report(name, value, at + after, at + after + late) for name, value, after, late in reports]
        out.append(Turn(at, f"e{number:03d}", action, deferred and number % 3 == 0, said))
    return out


@settings(max_examples=80, deadline=None)
@given(TURNS, RULES)
def test_step_by_step_is_the_same_as_at_once(drawn: Any, loop: RewardRule) -> None:
    turns = made(drawn)
    for number, state in enumerate(memories(ORACLE, turns, loop)):
        before = [each for each in turns if each.ts_us < turns[number].ts_us]
        assert np.array_equal(state, memory(ORACLE, before, loop, turns[number].ts_us))


@settings(max_examples=80, deadline=None)
@given(TURNS, RULES, st.lists(st.integers(0, 6_000), min_size=1, max_size=6))
def test_going_on_from_any_mark_is_the_same_as_from_the_first(drawn: Any, loop: RewardRule, times: list[int]) -> None:
    turns, marks = made(drawn), tuple[Mark, ...]()
    for after in times:  # in any order: a time before that of the marks is made anew
        at = 10_000_000 + after
        before = [each for each in turns if each.ts_us < at]
        mark = mark_before(marks, at)
        rest = before if mark is None else [each for each in before if (each.ts_us, each.event_id) > mark.after]
        going = gone_on(ORACLE, marks, rest, loop, at)
        whole = memory(ORACLE, before, loop, at)
        known = any(response(each, loop, at) is not None for each in before)
        assert (going.state is not None) == known
        assert np.array_equal(ORACLE.start() if going.state is None else going.state, whole)
        coming = [when for each in before for when in changes(each, loop) if at < when < going.until_us]
        for when in coming:  # nothing changes before it says so
            assert np.array_equal(memory(ORACLE, before, loop, when), whole)
        marks = going.marks
        assert len(marks) <= 2
