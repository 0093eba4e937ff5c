from __future__ import annotations

import numpy as np

from decision.batch import Batch
from decision.exploration.reach import moved, moves_of, reach_of


def test_a_move_replaces_all_that_stands_under_its_names() -> None:
    batch = Batch([{"os=ios": 1.0, "os.v": 3.0, "x": 1.0}], [{}], ["a"], np.array([0, 1]))
    assert list(moved(batch, {"os": {"os=web": 1.0}}).contexts) == [{"x": 1.0, "os=web": 1.0}]


def test_each_decision_picks_the_move_that_serves_it_best() -> None:
    batch = Batch([{"x": 1.0}, {"x": -1.0}], [{}, {}] * 2, ["a", "b"] * 2, np.array([0, 2, 4]))

    def pmf(asked: Batch) -> np.ndarray:
        high = [1.0 / (1.0 + np.exp(-context["x"])) for context in asked.contexts]
        return np.array([p for one in high for p in (one, 1.0 - one)])

    found = reach_of(pmf, batch, [{"x": {"x": value}} for value in (-3.0, 0.0, 3.0)])
    assert np.allclose(found.own, [0.731, 0.269, 0.269, 0.731], rtol=0.0, atol=1e-3)
    assert np.allclose(found.most, 0.953, rtol=0.0, atol=1e-3)
    assert np.allclose(found.least, 0.047, rtol=0.0, atol=1e-3)


def test_of_too_many_combinations_a_sample_is_tried() -> None:
    choices = {f"x{number}": [{f"x{number}": float(way)} for way in range(5)] for number in range(3)}
    assert len(moves_of(choices, most=125, rng=np.random.default_rng(0))) == 125
    few = moves_of(choices, most=20, rng=np.random.default_rng(0))
    assert len(few) == 20
    assert few == moves_of(choices, most=20, rng=np.random.default_rng(0))
