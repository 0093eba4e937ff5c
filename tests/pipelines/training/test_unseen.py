from __future__ import annotations

import numpy as np
import pytest

from decision.batch import Batch
from decision.exploration.sigma import MOST_ROWS
from pipelines.training.unseen import SHARE, Newest, held_out
from tests.decision.exploration.test_sigma import log


@pytest.mark.parametrize("cuts", [[], [1, 50], [999, 4_000]])
def test_a_twentieth_of_any_file_is_held_out_evenly_however_it_is_cut(cuts: list[int]) -> None:
    parts = np.split(np.arange(5_000), cuts)
    held = np.concatenate([held_out(int(part[0]), part.size) for part in parts])
    assert np.array_equal(held, held_out(0, 5_000))
    assert held.sum() == pytest.approx(5_000 * SHARE, abs=2)
    assert np.diff(np.flatnonzero(held)).max() <= 40
    assert np.bincount(np.flatnonzero(held) % 4, minlength=4).min() > 55


def test_the_newest_rows_are_kept_and_no_more() -> None:
    newest, n = Newest(), MOST_ROWS // 4
    for number in range(7):
        newest.add(log(np.full(n, float(number))))

    def nothing(batch: Batch) -> np.ndarray:
        return np.zeros(len(batch))

    reward, predicted, weight = newest.judged(nothing)
    assert reward.tolist() == np.repeat((3.0, 4.0, 5.0, 6.0), n).tolist()
    assert (predicted.size, weight.sum()) == (MOST_ROWS, MOST_ROWS)
