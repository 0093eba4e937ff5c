"""The pure join: windows, states, repeats and clipping, by hand and as properties."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decision.join import (
    ACTIVATION,
    DROPPED,
    EXPIRED,
    JOINED,
    PENDING,
    SKEW_US,
    DecisionRows,
    OutcomeRows,
    RewardRule,
    Settled,
    match,
    settle,
)

SECOND = 1_000_000
WINDOW = 600 * SECOND
T0 = 1_700_000_000 * SECOND
FOREVER = 1 << 60
Report = tuple[int, str, float, int]
"""Decision, name, value and microseconds after the decision."""


def rule(**changes: object) -> RewardRule:
    values: dict[str, object] = {
        "outcome": "reward",
        "window_us": WINDOW,
        "default": 0.0,
        "aggregation": "sum",
        "minimum": -10.0,
        "maximum": 10.0,
    }
    return RewardRule(**(values | changes))  # type: ignore[arg-type]


def join(
    reports: list[Report],
    *,
    n: int = 1,
    deferred: tuple[int, ...] = (),
    until: int = FOREVER,
    now: int = T0 + 2 * WINDOW,
    identities: Sequence[tuple[object, ...]] | None = None,
    **changes: object,
) -> Settled:
    decisions = DecisionRows(
        ts=np.full(n, T0, dtype=np.int64),
        deferred=np.isin(np.arange(n), deferred),
        until=np.full(n, until, dtype=np.int64),
    )
    outcomes = OutcomeRows(
        decision=np.array([r[0] for r in reports], dtype=np.int64),
        name=[r[1] for r in reports],
        value=np.array([r[2] for r in reports], dtype=np.float64),
        ts=np.array([T0 + r[3] for r in reports], dtype=np.int64),
        offset=np.arange(len(reports), dtype=np.int64),
        identities=identities or [()] * len(reports),  # type: ignore[arg-type]
    )
    return settle(decisions, outcomes, rule=rule(**changes), now_us=now)


@pytest.mark.parametrize(
    ("after", "counts"),
    [(-SKEW_US - 1, False), (-SKEW_US, True), (0, True), (WINDOW, True), (WINDOW + 1, False)],
)
def test_the_window_is_closed_and_allows_for_skewed_clocks(after: int, counts: bool) -> None:
    settled = join([(0, "reward", 1.0, after)])
    assert settled.state.tolist() == [JOINED if counts else EXPIRED]
    assert settled.reward.tolist() == [1.0 if counts else 0.0]
    assert settled.counted.tolist() == ([0] if counts else [])
    assert settled.early == (after < -SKEW_US)


@pytest.mark.parametrize(("now", "state"), [(T0 + WINDOW - 1, PENDING), (T0 + WINDOW, JOINED)])
def test_a_decision_is_mature_when_its_window_is_over(now: int, state: int) -> None:
    settled = join([(0, "reward", 1.0, 1)], now=now)
    assert settled.state.tolist() == [state]
    assert np.isnan(settled.reward[0]) == (state == PENDING)


def test_without_an_outcome_the_reward_is_the_default() -> None:
    settled = join([(0, "click", 1.0, 1)], default=-2.5)
    assert settled.state.tolist() == [EXPIRED]
    assert settled.reward.tolist() == [-2.5]
    assert settled.counted.tolist() == [0]  # kept beside the reward, whatever its name


def test_a_deferred_decision_counts_only_once_activated() -> None:
    reports: list[Report] = [
        (0, "reward", 1.0, 1),
        (1, "reward", 1.0, 1),
        (1, ACTIVATION, 1.0, 2),
        (2, ACTIVATION, 1.0, 2),
    ]
    settled = join(reports, n=4, deferred=(0, 1, 2))
    assert settled.state.tolist() == [DROPPED, JOINED, EXPIRED, EXPIRED]
    assert np.isnan(settled.reward[0])
    assert join([(0, ACTIVATION, 1.0, WINDOW + 1)], deferred=(0,)).state.tolist() == [DROPPED]


def test_a_reward_activates_where_the_rule_says_so() -> None:
    reports: list[Report] = [(0, "reward", 1.0, 1), (1, "click", 1.0, 1), (2, "reward", 1.0, WINDOW + 1)]
    settled = join(reports, n=3, deferred=(0, 1, 2), activates=True)
    assert settled.state.tolist() == [JOINED, DROPPED, DROPPED]
    assert join(reports, n=3, deferred=(0, 1, 2), activates=True, late=True).state.tolist() == [JOINED, DROPPED, JOINED]
    assert join(reports, n=3, deferred=(0, 1, 2)).state.tolist() == [DROPPED] * 3


@pytest.mark.parametrize(
    ("name", "slot", "activates", "counting"),
    [
        (ACTIVATION, "", False, [True, True]),  # of the event: both slots
        (ACTIVATION, "side", False, [False, True]),  # of one slot
        (ACTIVATION, "unknown", False, [False, False]),
        ("reward", "side", True, [True, True]),  # what was rewarded was shown, as a whole
        ("reward", "side", False, [False, False]),
    ],
)
def test_an_event_is_activated_with_all_its_slots(name: str, slot: str, activates: bool, counting: list[bool]) -> None:
    two = np.zeros(2, dtype=np.int64)
    decisions = DecisionRows(two + T0, np.ones(2, dtype=np.bool_), two + FOREVER, event=two)
    outcomes = OutcomeRows(
        decision=np.array([{"top": 0, "side": 1}.get(slot, -1)]),
        name=[name],
        value=np.ones(1),
        ts=np.array([T0 + 1]),
        offset=np.zeros(1, dtype=np.int64),
        identities=[()],
        event=np.zeros(1, dtype=np.int64),
        whole=np.array([not slot]),
    )
    settled = settle(decisions, outcomes, rule=rule(activates=activates), now_us=T0 + 2 * WINDOW)
    assert (settled.state != DROPPED).tolist() == counting


def test_a_report_that_arrived_twice_counts_once() -> None:
    reports: list[Report] = [(0, "reward", 1.0, 1), (0, "reward", 5.0, 2), (0, "reward", 2.0, 3), (1, "reward", 7.0, 1)]
    keys = [(("reward", "a"),), (("reward", "a"),), (("reward", "b"),), (("reward", "a"),)]
    settled = join(reports, n=2, identities=keys)
    assert settled.reward.tolist() == [3.0, 7.0]
    assert settled.repeats == 1


@pytest.mark.parametrize("after", [-SKEW_US - 1, WINDOW + 1])
def test_a_report_that_may_not_count_does_not_take_the_place_of_a_later_one(after: int) -> None:
    reports: list[Report] = [(0, "reward", 5.0, after), (0, "reward", 2.0, 3)]
    keys = [(("reward", "a"),), (("reward", "a"),)]
    settled = join(reports, identities=keys)
    assert settled.reward.tolist() == [2.0]


def test_a_copy_is_recognised_by_either_of_its_identities() -> None:
    reports: list[Report] = [(0, "reward", 1.0, 1), (0, "reward", 1.0, 1), (0, "reward", 1.0, 1)]
    settled = join(
        reports, identities=[(("reward", "k"), ("spool", 4)), (("spool", 4),), (("reward", "k"), ("spool", 9))]
    )
    assert settled.reward.tolist() == [1.0]
    assert settled.repeats == 2


def answered(
    actions: list[str | None], *, conflicting: bool = True, names: list[str] | None = None, deferred: bool = False
) -> Settled:
    """Settle one decision that drew "a", and outcomes that name `actions`."""
    m = len(actions)
    decisions = DecisionRows(
        np.array([T0]), np.array([deferred]), np.array([FOREVER]), None, ["a"], np.array([conflicting])
    )
    outcomes = OutcomeRows(
        decision=np.zeros(m, np.int64),
        name=names or ["reward"] * m,
        value=np.ones(m),
        ts=np.full(m, T0 + 1),
        offset=np.arange(m),
        identities=[()] * m,
        action=actions,
    )
    return settle(decisions, outcomes, rule=rule(), now_us=T0 + 2 * WINDOW)


def test_an_outcome_of_another_action_is_counted_and_never_booked() -> None:
    settled = answered(["b", "a", None, "b"], conflicting=False)
    assert (settled.state.tolist(), settled.reward.tolist(), settled.elsewhere) == ([JOINED], [2.0], 2)
    assert answered(["b"], conflicting=False, deferred=True).state.tolist() == [DROPPED]
    assert not answered(["b"], conflicting=False, deferred=True).conflict.any()


def test_a_conflicting_decision_counts_only_if_an_outcome_names_its_action_and_only_with_such() -> None:
    for actions in ([], [None], ["b"], [None, "b"]):
        settled = answered(list(actions))
        assert (settled.state.tolist(), settled.conflict.tolist()) == ([DROPPED], [True])
        assert np.isnan(settled.reward).all()
        assert len(settled.counted) == 0
    settled = answered([None, "a", "b"])
    assert (settled.state.tolist(), settled.reward.tolist(), settled.counted.tolist()) == ([JOINED], [1.0], [1])
    assert answered(["a"], names=[ACTIVATION], deferred=True).state.tolist() == [EXPIRED]
    assert answered([None], names=[ACTIVATION], deferred=True).conflict.tolist() == [True]


def test_without_an_identity_equal_reports_are_two() -> None:
    assert join([(0, "reward", 1.0, 1), (0, "reward", 1.0, 1)]).reward.tolist() == [2.0]


def test_clipping_is_to_the_range_and_is_told() -> None:
    settled = join([(0, "reward", 99.0, 1), (1, "reward", -99.0, 1), (2, "reward", 10.0, 1)], n=4, default=-10.0)
    assert settled.reward.tolist() == [10.0, -10.0, 10.0, -10.0]
    assert settled.clipped.tolist() == [True, True, False, False]


def test_max_of_a_negative_outcome_is_that_outcome_and_not_the_default() -> None:
    assert join([(0, "reward", -3.0, 1)], aggregation="max").reward.tolist() == [-3.0]


def test_what_was_not_known_does_not_count_unless_late() -> None:
    reports: list[Report] = [(0, "reward", 1.0, 1), (0, "reward", 2.0, 2), (0, "reward", 4.0, 9 * WINDOW)]
    assert join(reports, until=1).reward.tolist() == [1.0]
    assert join(reports).reward.tolist() == [3.0]
    assert join(reports, late=True).reward.tolist() == [7.0]


def test_late_does_not_make_a_decision_mature_later() -> None:
    assert join([], now=T0 + WINDOW, late=True).state.tolist() == [EXPIRED]


def test_orphans_are_nobodys() -> None:
    settled = join([(-1, "reward", 1.0, 1), (-1, "reward", 1.0, 1)], identities=[(("reward", "a"),)] * 2)
    assert settled.state.tolist() == [EXPIRED]
    assert len(settled.counted) == settled.repeats == 0


def test_match_finds_the_row_of_each_key() -> None:
    assert match([("a", ""), ("b", "1")], [("b", "1"), ("b", "2"), ("a", ""), ("b", "1")]).tolist() == [1, -1, 0, 1]
    assert match(["x", "x"], ["x"]).tolist() == [0]
    assert match([], ["x"]).tolist() == [-1]


REPORTS = st.lists(
    st.tuples(
        st.integers(-1, 3),
        st.sampled_from(["reward", ACTIVATION, "click"]),
        st.floats(-20, 20),
        st.integers(-2 * SKEW_US, WINDOW + 5),
    ),
    max_size=20,
)


@given(reports=REPORTS, now=st.integers(T0, T0 + 2 * WINDOW), kind=st.sampled_from(["sum", "max", "latest", "mean"]))
def test_every_decision_has_one_state_and_a_reward_in_range(reports: list[Report], now: int, kind: str) -> None:
    settled = join(reports, n=4, deferred=(2, 3), now=now, aggregation=kind)
    has_reward = np.isin(settled.state, [JOINED, EXPIRED])
    assert (np.isnan(settled.reward) == ~has_reward).all()
    assert (np.abs(settled.reward[has_reward]) <= 10).all()
    assert ((settled.state == PENDING) == (now < T0 + WINDOW)).all()
    assert settled.offsets[0] == 0
    assert settled.offsets[-1] == len(settled.counted)
    for row in range(4):
        owned = settled.counted[settled.offsets[row] : settled.offsets[row + 1]].tolist()
        assert all(reports[i][0] == row for i in owned)
        assert [reports[i][3] for i in owned] == sorted(reports[i][3] for i in owned)


@given(reports=REPORTS, order=st.randoms(use_true_random=False))
def test_the_order_of_arrival_changes_nothing_but_ties(reports: list[Report], order: object) -> None:
    timed = [(d, name, value, 7 * place + after % 7) for place, (d, name, value, after) in enumerate(reports)]
    shuffled = list(timed)
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    first, second = join(timed, n=4, deferred=(3,)), join(shuffled, n=4, deferred=(3,))
    assert first.state.tolist() == second.state.tolist()
    np.testing.assert_array_equal(first.reward, second.reward)
