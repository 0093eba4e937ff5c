from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from decision.batch import Batch, Floats, Interactions
from decision.columns import FeatureRows, Texts
from decision.exploration.sigma import Residuals, sigma_of


def log(reward: Floats) -> Interactions:
    """Return decisions between two actions, the second drawn, whose contexts carry the number of the row."""
    n = len(reward)
    batch = Batch(
        [{"x": float(i)} for i in range(n)],
        [{"a=0": 1.0}, {"a=1": 1.0}] * n,
        ["0", "1"] * n,
        np.arange(n + 1, dtype=np.int64) * 2,
    )
    chosen = np.arange(n, dtype=np.int64) * 2 + 1
    return Interactions(batch, chosen, np.full(n, 0.5), reward, np.full(2 * n, 0.5))


def of_second(batch: Batch) -> Floats:
    """Return .25 for the second action and nonsense for others."""
    return np.array([0.25 if "a=1" in action else 1e9 for action in batch.actions])


def test_sigma_is_the_weighted_root_mean_square_with_the_largest_error_counted_once_more() -> None:
    """Errors .75, -.25, -.25 of weights 2, 1, 1: (2 .5625 + 2 .0625 + 2 .5625) / 4."""
    rewards = log(np.array([1.0, 0.0, 0.0]))
    residuals = Residuals()
    residuals.add(rewards, np.array([2.0, 1.0, 1.0]))
    assert residuals.sigma(of_second, low=0.0, high=1.0) == pytest.approx(np.sqrt(2.375 / 4.0))


def test_sigma_approaches_the_noise() -> None:
    """10,000 normal errors: a standard error of .7%, the largest adds 1/2 16/10,000; five of them fail once in 1e6."""
    rng = np.random.default_rng(0)
    expected = rng.normal(size=10_000)
    found = sigma_of(expected + 3.0 * rng.normal(size=10_000), expected, np.ones(10_000), low=-9.0, high=9.0)
    assert found == pytest.approx(3.0, rel=5 * 0.0071)


@pytest.mark.parametrize("times", [1e-300, 1e-3, 1e3, 1e150])
@pytest.mark.parametrize("plus", [0.0, -7.0])
def test_sigma_has_the_unit_of_rewards_and_no_zero(times: float, plus: float) -> None:
    rng = np.random.default_rng(1)
    reward, expected, weight = (rng.random(500) < 0.05).astype(np.float64), rng.random(500), rng.random(500) + 0.1
    alone = sigma_of(reward, expected, weight, low=0.0, high=1.0)
    again = sigma_of(times * (reward + plus), times * (expected + plus), weight, low=times * plus, high=times)
    assert again == pytest.approx(times * alone, rel=1e-9)


def test_rewards_that_do_not_differ_say_nothing_of_noise() -> None:
    residuals = Residuals()
    assert residuals.sigma(of_second, low=-2.0, high=1.0) == 3.0
    residuals.add(log(np.zeros(400)), np.ones(400))
    assert residuals.sigma(of_second, low=-2.0, high=1.0) == 3.0


def test_a_perfect_prediction_leaves_a_unit() -> None:
    reward = np.array([0.0, 5.0, 10.0])
    assert 0.0 < sigma_of(reward, reward, np.ones(3), low=0.0, high=10.0) <= 1e-5


def test_rows_without_weight_do_not_count() -> None:
    rewards = log(np.array([1.0, 0.0, 0.5]))
    residuals, without = Residuals(), Residuals()
    residuals.add(rewards, np.array([1.0, 1.0, 0.0]))
    without.add(rewards.take(np.array([0, 1])), np.ones(2))
    assert residuals.sigma(of_second, low=0.0, high=1.0) == without.sigma(of_second, low=0.0, high=1.0)


@pytest.mark.parametrize("cuts", [[], [1, 5, 17_000], [16_384, 20_001], [39_999]])
def test_what_is_kept_of_a_long_log_does_not_depend_on_its_chunks_and_lies_evenly(cuts: list[int]) -> None:
    n = 40_000
    ends = [0, *cuts, n]
    residuals = Residuals()
    seen: list[Floats] = []

    def predict(batch: Batch) -> Floats:
        seen.append(np.array([row["x"] for row in batch.contexts]))
        return np.zeros(len(batch))

    for start, stop in pairwise(ends):
        residuals.add(numbered(start, stop), np.ones(stop - start))
    residuals.sigma(predict, low=0.0, high=1.0)
    assert seen[0].size == pytest.approx(n / 4, rel=0.01)
    steps = np.diff(np.concatenate([[-1.0], np.sort(seen[0]), [float(n)]]))
    assert steps.max() <= 8
    pattern = np.bincount(seen[0].astype(np.int64) % 4, minlength=4)
    assert pattern.min() > 0.9 * pattern.mean()


def numbered(start: int, stop: int) -> Interactions:
    """Return decisions with one action, their contexts' x the row of a log, rewards 0 and 1 in turns."""
    n = stop - start
    one, rows = np.zeros(n, np.int32), np.arange(n, dtype=np.int64)
    offsets = np.arange(n + 1, dtype=np.int64)
    x = np.arange(start, stop, dtype=np.float64)
    batch = Batch(FeatureRows(["x"], one, x, offsets, rows), FeatureRows.empty(n), Texts(["a"], rows * 0), offsets)
    return Interactions(batch, rows, np.ones(n), x % 2.0, np.ones(n))
