from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from decision.batch import Floats
from decision.ope.estimators.snips import SnipsSums, snips
from decision.ope.sums.means import MeanSums
from decision.ope.sums.skewness import INFLATED, skewed, skewness_of


def sums_of(terms: Floats, counts: Floats | None = None) -> MeanSums:
    return MeanSums.of(terms, np.ones(len(terms)), counts, cubes=True)


def test_without_skewness_it_is_students_interval() -> None:
    z = stats.t.ppf(0.975, 19)
    assert skewed(2.0, 0.5, 0.0, n=20, level=0.95) == pytest.approx((2.0 - 0.5 * z, 2.0 + 0.5 * z))


@pytest.mark.parametrize("skewness", [-0.3, -0.01, 0.05, 0.4])
def test_each_end_is_the_wider_one_of_students_and_halls(skewness: float) -> None:
    """Hall's end is where the cubic of Student's ratio meets the quantile."""
    z, k = stats.t.ppf(0.975, 49), INFLATED * skewness
    low, high = skewed(0.0, 1.0, skewness, n=50, level=0.95)
    assert low <= -z + 1e-12
    assert high >= z - 1e-12
    long = -low if k < 0 else high
    assert long > z
    ratio = long if k < 0 else -long
    cubic = ratio + k * ratio**2 / 3 + k**2 * ratio**3 / 27 + k / 6
    assert abs(cubic) == pytest.approx(z)


def test_opposite_terms_have_the_opposite_interval() -> None:
    rng = np.random.default_rng(0)
    terms = rng.exponential(size=200) ** 2
    low, high = sums_of(terms).interval(0.9)
    assert sums_of(-terms).interval(0.9) == pytest.approx((-high, -low))


@pytest.mark.parametrize("scale", [1e-3, 1e3, 1e12])
def test_interval_scales_with_its_terms_and_moves_with_them(scale: float) -> None:
    terms = np.random.default_rng(1).exponential(size=300)
    expected = np.array(sums_of(terms).interval(0.95))
    assert sums_of(scale * terms).interval(0.95) == pytest.approx(scale * expected, rel=1e-9)
    assert sums_of(terms + 10.0).interval(0.95) == pytest.approx(10.0 + expected, rel=1e-9)


def test_skewness_is_that_of_the_sample_and_shards_merge_to_it() -> None:
    terms = np.random.default_rng(2).lognormal(size=500)
    whole = sums_of(terms)
    assert whole.skewness == pytest.approx(stats.skew(terms) / math.sqrt(500))
    parts = sums_of(terms[:123]) + MeanSums() + sums_of(terms[123:])
    assert parts == whole
    counted = sums_of(terms, np.full(500, 3.0))
    assert counted.skewness == pytest.approx(whole.skewness)
    assert counted.interval(0.95) == pytest.approx(whole.interval(0.95))


def test_a_constant_has_neither_skewness_nor_width() -> None:
    terms = np.full(50, 1e6 / 3)
    assert skewness_of(1e6 / 3, sums_of(terms).cubes, 0.0) == 0.0
    low, high = sums_of(terms).interval(0.95)
    assert high - low == pytest.approx(0.0, abs=1e-6)


def test_ratio_of_equal_weights_has_the_interval_of_the_mean() -> None:
    """Up to the degree of freedom that a normal interval does not take off."""
    reward = np.random.default_rng(3).lognormal(size=2_000)
    found = snips(SnipsSums.of(np.full(2_000, 2.5), reward, cubes=True))
    assert found is not None
    assert (found.low, found.high) == pytest.approx(sums_of(reward).interval(0.95), rel=1e-3)


@pytest.mark.statistical
@pytest.mark.parametrize(
    ("name", "n"), [("revenue", 4_000), ("revenue", 9_000), ("wild revenue", 6_000), ("clicks", 3_000)]
)
def test_interval_of_rare_and_skewed_rewards_holds_where_students_does_not(name: str, n: int) -> None:
    """800 samples at 95%: 731 or fewer hold with probability .001 if the interval holds in 94%."""
    rng = np.random.default_rng([4, n])
    rate, sigma = {"revenue": (0.03, 1.0), "wild revenue": (0.03, 1.4), "clicks": (0.005, 0.0)}[name]
    truth = rate * math.exp(sigma**2 / 2.0)
    held = plain = 0
    for _ in range(800):
        terms = np.zeros(n)
        won = rng.random(n) < rate
        terms[won] = rng.lognormal(0.0, sigma, size=int(won.sum()))
        sums = sums_of(terms)
        low, high = sums.interval(0.95)
        held += low <= truth <= high
        plain += abs(sums.mean - truth) <= 1.96 * sums.error
    assert held > 731
    assert plain < held
