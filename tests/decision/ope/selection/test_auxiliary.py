from __future__ import annotations

import numpy as np
import pytest

from decision.errors import FieldError
from decision.ope.selection.auxiliary import choose, unit_of

ONES = np.ones(4)


def test_a_weight_is_taken_only_if_it_is_better_by_more_than_its_standard_error() -> None:
    # terms -1, 3, -1, 3 beside 0: mean 1, deviation 2 / sqrt(4) = 1; a little more is enough
    apart = np.array([-1.0, 3.0, -1.0, 3.0])
    even = choose(np.stack((np.zeros(4), apart)), ONES)
    assert (even.chosen, even.lift[1], even.error[1]) == (0, 1.0, 1.0)
    assert choose(np.stack((np.zeros(4), apart + 0.01)), ONES).chosen == 1


def test_of_weights_that_are_better_the_best_is_taken_and_zero_where_none_is() -> None:
    worth = np.stack((np.zeros(4), np.full(4, 0.1), np.full(4, 0.3), np.full(4, -1.0)))
    assert choose(worth, ONES).chosen == 2
    assert choose(-np.abs(worth), ONES).chosen == 0
    assert choose(worth[:1], ONES).chosen == 0


def test_a_row_that_stands_for_three_counts_as_three() -> None:
    worth = np.array([[0.0, 0.0], [1.0, -1.0]])
    assert choose(worth, np.array([3.0, 1.0])).lift[1] == 0.5


def test_the_unit_follows_the_units_of_reward_and_outcome() -> None:
    rng = np.random.default_rng(0)
    reward, outcome, weight = rng.random(50), rng.random(50), rng.random(50)
    unit = unit_of(reward, outcome, weight)
    assert unit_of(100.0 * reward + 7.0, 5.0 * outcome - 2.0, weight) == pytest.approx(20.0 * unit)
    assert unit_of(np.ones(50), outcome, weight) == 0.0
    assert unit_of(reward, np.zeros(50), weight) == 0.0


def test_terms_that_do_not_fit_the_rows_are_refused() -> None:
    with pytest.raises(FieldError, match="worth"):
        choose(np.zeros((2, 3)), ONES)
