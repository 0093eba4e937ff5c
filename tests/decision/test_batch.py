from __future__ import annotations

import numpy as np
import pytest

from decision.batch import Batch, one
from decision.errors import FieldError
from tests.strategies import interactions_of


def test_take_keeps_each_decision_whole() -> None:
    data = interactions_of(np.random.default_rng(0), 30)
    rows = np.array([7, 3, 3, 29])
    taken = data.take(rows)
    for new, old in enumerate(rows):
        a, b = taken.batch.offsets[new : new + 2]
        c, d = data.batch.offsets[old : old + 2]
        assert taken.batch.action_ids[a:b] == data.batch.action_ids[c:d]
        assert taken.batch.contexts[new] == data.batch.contexts[old]
        assert taken.chosen[new] - a == data.chosen[old] - c
        assert np.array_equal(taken.pmf[a:b], data.pmf[c:d])
    assert np.array_equal(taken.reward, data.reward[rows])


@pytest.mark.parametrize("offsets", [[0, 1], [0, 2, 1], [1, 2, 3], [0, 0, 3]])
def test_offsets_that_do_not_fit_are_refused(offsets: list[int]) -> None:
    with pytest.raises(FieldError, match="offsets"):
        Batch([{}, {}], [{}, {}, {}], ["a", "b", "c"], np.array(offsets))


def test_ids_that_do_not_fit_are_refused() -> None:
    with pytest.raises(FieldError, match="action_ids"):
        Batch([{}], [{}, {}], ["a"], np.array([0, 2]))


def test_one_is_a_batch_of_one() -> None:
    batch = one({"x": 1.0}, [{}, {}], ["a", "b"])
    assert len(batch) == 1
    assert batch.offsets.tolist() == [0, 2]
