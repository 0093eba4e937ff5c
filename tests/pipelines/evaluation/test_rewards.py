"""Sums of nights' rewards: their mean lies in an interval that holds at every look, and follows scale and shift."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.evaluation.rewards import Rewards, Running, rewards_of, running


def nights(rng: np.random.Generator, count: int, size: int, chance: float) -> list[Rewards]:
    return [rewards_of((rng.random(size) < chance).astype(np.float64)) for _ in range(count)]


def test_the_mean_is_that_of_all_rewards_whatever_night_they_came_in() -> None:
    rng = np.random.default_rng(3)
    values = [rng.normal(size=n) for n in (5, 0, 11)]
    at = running([rewards_of(each) for each in values], -10.0, 10.0)
    assert [one.n for one in at] == [5, 5, 16]
    assert at[-1].mean == pytest.approx(np.concatenate(values).mean())
    assert running([rewards_of(each) for each in values], -10.0, 10.0, latest=1) == at[-1:]


def test_the_truth_lies_in_the_interval_at_all_looks_at_once() -> None:
    """200 histories of 30 looks at 95 %: more than 20 that are ever left has a chance below .002."""
    rng = np.random.default_rng(11)
    left = 0
    for _ in range(200):
        at = running(nights(rng, 30, 40, 0.3), 0.0, 1.0)
        left += any(not one.low <= 0.3 <= one.high for one in at)
    assert left <= 20


def test_the_interval_shrinks_and_moves_with_scale_and_shift() -> None:
    rng = np.random.default_rng(5)
    own = nights(rng, 6, 500, 0.4)
    plain = running(own, 0.0, 1.0)
    widths = [one.high - one.low for one in plain]
    assert widths == sorted(widths, reverse=True)
    rng = np.random.default_rng(5)
    scaled = [rewards_of(100.0 * (rng.random(500) < 0.4) - 7.0) for _ in range(6)]
    for one, other in zip(plain, running(scaled, -7.0, 93.0), strict=True):
        assert other == pytest.approx(Running(one.n, *(100.0 * value - 7.0 for value in one[1:])), rel=1e-6)


def test_without_a_range_the_one_that_was_seen_stands_in() -> None:
    at = running([rewards_of(np.array([2.0, 2.0])), rewards_of(np.array([5.0]))], None, None)
    assert 2.0 <= at[-1].low < at[-1].mean < at[-1].high <= 5.0
    assert running([Rewards()], None, None) == [Running(0, 0.0, 0.0, 0.0)]
    assert running([rewards_of(np.array([2.0, 2.0]))], None, None) == [Running(2, 2.0, 2.0, 2.0)]
