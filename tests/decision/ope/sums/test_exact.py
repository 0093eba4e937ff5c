from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decision.errors import FieldError
from decision.ope.sums.exact import (
    ExactArray,
    added,
    exact_group_sums,
    exact_sum,
    exact_sums,
    expansion,
    rounded,
    rounded_all,
)

NUMBERS = st.floats(-1e100, 1e100, allow_nan=False)


def whole(a: tuple[float, ...]) -> Fraction:
    return sum((Fraction(part) for part in a), Fraction(0))


@given(st.lists(NUMBERS, max_size=60))
def test_a_sum_is_that_of_exact_fractions(values: list[float]) -> None:
    total = exact_sum(np.array(values))
    assert whole(total) == sum((Fraction(v) for v in values), Fraction(0))
    assert rounded(total) == float(whole(total))


@given(st.lists(NUMBERS, min_size=1, max_size=60), st.integers(0, 60), st.randoms())
def test_any_partition_in_any_order_gives_the_same_bits(values: list[float], cut: int, random) -> None:
    shuffled = random.sample(values, len(values))
    parts = (np.array(shuffled[:cut]), np.array(shuffled[cut:]))
    assert added(exact_sum(parts[0]), exact_sum(parts[1])) == exact_sum(np.array(values))


@given(st.integers(0, 2**31), st.integers(1, 7))
def test_groups_are_summed_exactly(seed: int, groups: int) -> None:
    rng = np.random.default_rng(seed)
    columns = rng.normal(size=(2, 40)) * 10.0 ** rng.integers(-30, 30, size=(2, 40))
    group = rng.integers(groups, size=40)
    sums = exact_group_sums(columns, group, groups)
    for j in range(2):
        for g in range(groups):
            assert expansion(sums[j, g]) == exact_sum(columns[j, group == g])
    assert rounded_all(sums)[0, 0] == rounded(exact_sum(columns[0, group == 0]))


def test_long_columns_of_every_size_are_exact() -> None:
    rng = np.random.default_rng(0)
    columns = np.stack([rng.lognormal(sigma=5.0, size=30_001), rng.normal(size=30_001), np.zeros(30_001)])
    for total, column in zip(exact_sums(columns), columns, strict=True):
        assert whole(total) == sum(map(Fraction, column.tolist()), Fraction(0))


def test_denormal_numbers_are_not_lost() -> None:
    assert exact_sum(np.array([5e-324, 5e-324, 1.0, -1.0])) == (1e-323,)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e200])
def test_what_cannot_be_summed_is_refused(bad: float) -> None:
    with pytest.raises(FieldError) as caught:
        exact_sum(np.array([1.0, bad]))
    assert caught.value.field == "terms"


@given(st.integers(0, 2**31), st.integers(-1_070, 400))
def test_arrays_of_sums_merge_to_the_same_numbers_in_any_order(seed: int, power: int) -> None:
    rng = np.random.default_rng(seed)
    columns = np.ldexp(rng.normal(size=(2, 60)), power + rng.integers(-40, 40, size=(2, 60)))
    group = rng.integers(5, size=60)
    whole = ExactArray.of(columns, group, 5)
    parts = [ExactArray.of(columns[:, rows], group[rows], 5) for rows in np.array_split(rng.permutation(60), 4)]
    merged = parts[2] + parts[0] + (parts[3] + parts[1])
    assert (merged.wholes() == whole.wholes()).all()
    assert [expansion(total) for total in merged.totals()] == exact_sums(columns)
    assert (merged.rows([1, 1]).wholes() == whole.wholes()[[1, 1]]).all()


def test_a_column_that_stands_twice_has_the_same_sums() -> None:
    column, group = np.random.default_rng(0).normal(size=30), np.arange(30) % 3
    sums = ExactArray.of([column, column * 2.0, column], group, 3).wholes()
    assert (sums[0] == sums[2]).all()
    assert (sums[0] * 2 == sums[1]).all()
