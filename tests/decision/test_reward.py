"""Aggregations against plain Python, over negatives, zeros, ties and nothing."""

import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decision.errors import FieldError
from decision.reward import AGGREGATIONS, Aggregation, Rewards, aggregate, aggregate_groups

VALUES = st.floats(-1e6, 1e6) | st.sampled_from([0.0, -0.0, -1.0, -1e-300, 5e-324])
REPORTS = st.lists(st.tuples(VALUES, st.integers(0, 5)), max_size=12)


def plainly(reports: list[tuple[float, int]], kind: Aggregation) -> float | None:
    if not reports:
        return None
    values = [value for value, _ in reports]
    in_time = sorted(reports, key=lambda report: report[1])  # stable: ties stay in the order given
    return {
        "sum": lambda: math.fsum(values),
        "mean": lambda: statistics.fmean(values),
        "min": lambda: min(values),
        "max": lambda: max(values),
        "earliest": lambda: in_time[0][0],
        "latest": lambda: in_time[-1][0],
    }[kind]()


def arrays(reports: list[tuple[float, int]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([v for v, _ in reports], dtype=np.float64), np.array([t for _, t in reports], dtype=np.int64)


@pytest.mark.parametrize("kind", AGGREGATIONS)
@given(reports=REPORTS)
def test_aggregate_is_what_plain_python_says(kind: Aggregation, reports: list[tuple[float, int]]) -> None:
    got, want = aggregate(*arrays(reports), kind), plainly(reports, kind)
    if want is None:
        assert got is None
    elif kind in ("sum", "mean"):
        assert got == pytest.approx(want, rel=1e-12, abs=1e-9)
    else:
        assert got == want


@pytest.mark.parametrize("kind", AGGREGATIONS)
@given(groups=st.lists(REPORTS, min_size=1, max_size=6), data=st.data())
def test_grouping_is_aggregating_each_group_by_itself(
    kind: Aggregation, groups: list[list[tuple[float, int]]], data: st.DataObject
) -> None:
    rows = [(group, *report) for group, reports in enumerate(groups) for report in reports]
    # groups interleaved at random; within a group the order, which breaks ties, stays
    keys = data.draw(st.lists(st.integers(0, 3), min_size=len(rows), max_size=len(rows)))
    order = sorted(range(len(rows)), key=lambda i: (keys[rows[i][0] % max(1, len(keys))] if keys else 0, i))
    mixed = [rows[i] for i in order]
    got = aggregate_groups(
        np.array([v for _, v, _ in mixed]),
        np.array([t for _, _, t in mixed], dtype=np.int64),
        np.array([g for g, _, _ in mixed], dtype=np.int64),
        len(groups),
        kind,
    )
    for value, reports in zip(got, groups, strict=True):
        alone = aggregate(*arrays(reports), kind)
        assert np.isnan(value) if alone is None else value == alone


@pytest.mark.parametrize("kind", AGGREGATIONS)
def test_nothing_has_no_aggregate(kind: Aggregation) -> None:
    assert aggregate(np.array([]), np.array([], dtype=np.int64), kind) is None
    assert np.isnan(aggregate_groups(np.array([]), np.array([], np.int64), np.array([], np.int64), 3, kind)).all()


@pytest.mark.parametrize(
    ("kind", "want"),
    [("max", -0.5), ("min", -3.0), ("sum", -5.5), ("mean", -5.5 / 3), ("earliest", -2.0), ("latest", -3.0)],
)
def test_negative_values_stay_negative(kind: Aggregation, want: float) -> None:
    assert aggregate(np.array([-0.5, -3.0, -2.0]), np.array([5, 9, 1]), kind) == want


def test_max_of_zeros_is_zero() -> None:
    assert aggregate(np.array([0.0, 0.0]), np.array([1, 2]), "max") == 0.0


def test_mean_of_equal_values_is_that_value() -> None:
    for n in range(1, 60):
        assert aggregate(np.ones(n), np.arange(n), "mean") == 1.0


@pytest.mark.parametrize(("kind", "want"), [("sum", math.inf), ("mean", 1e308)])
def test_sums_beyond_the_range_of_doubles_do_not_become_nan(kind: Aggregation, want: float) -> None:
    huge = np.full(64, 1e308)
    assert aggregate(huge, np.arange(64), kind) == pytest.approx(want)
    assert aggregate(np.r_[huge, -huge], np.arange(128), "sum") == 0.0


def test_an_unknown_aggregation_is_named() -> None:
    with pytest.raises(FieldError, match=r"aggregation: must be 'sum', .*, is 'median'"):
        aggregate(np.array([1.0]), np.array([1]), "median")  # type: ignore[arg-type]
    with pytest.raises(FieldError, match="order_ts"):
        aggregate(np.array([1.0]), np.array([1, 2]), "sum")


def ends(*rewards: float, minimum: float | None = None, maximum: float | None = None) -> tuple[float, float]:
    learned = Rewards()
    learned.add(np.array(rewards, dtype=np.float64), np.linspace(0.0, 0.99, len(rewards)))
    found = learned.range(minimum, maximum)
    return found.low, found.high


def test_range_is_from_the_smallest_to_the_largest_reward() -> None:
    assert ends(0.0, 0.0, 0.0, 1.0) == (0.0, 1.0)
    assert ends(-3.0, 0.0, 0.0, -0.5) == (-3.0, 0.0)
    assert ends(1.0, 5.0, 4.0, 4.0, 2.0) == (1.0, 5.0)


def test_range_ends_at_the_bounds_that_are_given() -> None:
    assert ends(0.0, 2.0, minimum=-1.0, maximum=10.0) == (-1.0, 10.0)
    assert ends(0.0, 2.0, 1.0, minimum=-1.0) == (-1.0, 2.0)
    assert ends(0.0, 2.0, 1.0, maximum=1.5) == (0.0, 1.5)


@pytest.mark.parametrize(
    ("rewards", "given", "wanted"),
    [
        ([], {}, (0.0, 1.0)),
        ([0.0, 0.0], {}, (0.0, 1.0)),
        ([7.0, 7.0], {}, (0.0, 7.0)),
        ([-7.0], {}, (-7.0, 0.0)),
        ([3.0], {"minimum": 5.0}, (5.0, 10.0)),
        ([3.0], {"maximum": -2.0}, (-4.0, -2.0)),
        ([0.0], {"minimum": 0.0}, (0.0, 1.0)),
    ],
)
def test_range_of_equal_rewards_is_one_all_the_same(rewards: list[float], given: dict, wanted: tuple) -> None:
    assert ends(*rewards, **given) == wanted


@pytest.mark.parametrize("share", [0.03, 1.0])
@pytest.mark.parametrize("alone", [1e9, -1e9, 1e300])
def test_reward_that_stands_alone_makes_no_range(share: float, alone: float) -> None:
    rng = np.random.default_rng(3)
    amounts = np.where(rng.random(3_000) < share, rng.lognormal(3.0, 1.0, 3_000), 0.0)
    low, high = ends(*amounts, alone)
    assert amounts.max() <= max(high, 1e4)
    assert max(abs(low), high) < 100 * amounts.max()


def test_skewed_rewards_keep_their_range() -> None:
    """Revenue of 3% of the decisions, lognormal with sigma 1: 0 to the largest; 20 logs of fixed seeds."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        amounts = np.where(rng.random(20_000) < 0.03, rng.lognormal(3.0, 1.0, 20_000), 0.0)
        assert ends(*amounts) == (0.0, amounts.max())


@given(
    st.lists(st.integers(-1_000, 1_000), min_size=1, max_size=60),
    st.sampled_from([2.0**-10, 2.0**10]),
    st.integers(-512, 512),
)
def test_range_scales_and_shifts_with_the_rewards(rewards: list[int], scale: float, shift: int) -> None:
    low, high = ends(*map(float, rewards))
    assert ends(*(scale * reward for reward in rewards)) == (
        (scale * low, scale * high) if any(rewards) else (0.0, 1.0)
    )
    if len(set(rewards)) > 1:
        assert ends(*(float(reward + shift) for reward in rewards)) == (low + shift, high + shift)


def test_range_does_not_depend_on_order_or_chunks() -> None:
    rng = np.random.default_rng(1)
    reward, uniform = rng.lognormal(0.0, 2.0, 300_000), rng.random(300_000)
    found = []
    for order, pieces in ((np.arange(reward.size), 1), (rng.permutation(reward.size), 17)):
        learned = Rewards()
        for rows in np.array_split(order, pieces):
            learned.add(reward[rows], uniform[rows])
        found.append(learned.range())
    assert found[0] == found[1]
