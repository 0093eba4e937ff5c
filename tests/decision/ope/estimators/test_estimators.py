from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from decision.batch import Batch, Interactions
from decision.errors import SupportError
from decision.ope.diagnostics.weights import diagnostics
from decision.ope.estimators.dr import dr, dr_sums
from decision.ope.estimators.ips import ips, ips_sums
from decision.ope.estimators.snips import SnipsSums, snips
from decision.ope.sums.means import MeanSums
from decision.ope.sums.skewness import skewed
from decision.ope.weights import effective_sample_size, weights_of
from tests.contracts.estimator import world_of

# Three decisions by hand: K = 2, 3, 2; weights 2, 1/2, 3.
LOG = Interactions(
    Batch([{}] * 3, [{}] * 7, list("abcdeab"), np.array([0, 2, 5, 7])),
    chosen=np.array([0, 3, 6]),
    propensity=np.array([0.25, 0.4, 0.3]),
    reward=np.array([1.0, 0.0, 0.5]),
    pmf=np.array([0.25, 0.75, 0.3, 0.4, 0.3, 0.7, 0.3]),
)
PMF = np.array([0.5, 0.5, 0.6, 0.2, 0.2, 0.1, 0.9])
EXPECTED = np.array([0.8, 0.2, 0.1, 0.2, 0.3, 0.0, 0.4])


def test_weights_are_evaluation_over_logged_probability() -> None:
    weights = weights_of(LOG, PMF)
    assert weights == pytest.approx([2.0, 0.5, 3.0])
    assert effective_sample_size(weights) == pytest.approx(5.5**2 / (4 + 0.25 + 9))
    assert effective_sample_size(np.zeros(3)) == 0.0


def test_ips_by_hand() -> None:
    terms = np.array([2.0, 0.0, 1.5])
    estimate = ips(ips_sums(weights_of(LOG, PMF), LOG.reward))
    low, high = skewed(terms.mean(), stats.sem(terms), stats.skew(terms) / np.sqrt(3), n=3, level=0.95)
    assert [estimate.value, estimate.low, estimate.high] == pytest.approx([3.5 / 3, low, high])


def test_snips_by_hand() -> None:
    estimate = snips(SnipsSums.of(weights_of(LOG, PMF), LOG.reward), level=0.9)
    assert estimate is not None
    value = 3.5 / 5.5
    error = np.sqrt(4 * (1 - value) ** 2 + 0.25 * value**2 + 9 * (0.5 - value) ** 2) / 5.5
    assert estimate.value == pytest.approx(value)
    assert estimate.high - value == pytest.approx(1.6448536 * error)


def test_dr_by_hand() -> None:
    direct = np.array([0.5, 0.06 + 0.04 + 0.06, 0.36])
    terms = direct + np.array([2.0 * (1.0 - 0.8), 0.5 * (0.0 - 0.2), 3.0 * (0.5 - 0.4)])
    assert dr(dr_sums(LOG, PMF, EXPECTED)).value == pytest.approx(terms.mean())


def test_dr_without_a_reward_model_is_ips() -> None:
    assert dr(dr_sums(LOG, PMF, np.zeros(7))) == ips(ips_sums(weights_of(LOG, PMF), LOG.reward))


# Rewards whose squares are denormal keep few digits of them.
@given(
    reward=st.floats(-10, 10).filter(lambda r: abs(r) > 1e-100 or r == 0), n=st.integers(2, 60), seed=st.integers(0, 99)
)
def test_snips_of_a_constant_reward_is_that_reward_with_no_width(reward: float, n: int, seed: int) -> None:
    weights = np.random.default_rng(seed).lognormal(size=n)
    estimate = snips(SnipsSums.of(weights, np.full(n, reward)))
    assert estimate is not None
    assert estimate.value == pytest.approx(reward, rel=1e-12, abs=1e-300)
    assert estimate.low == estimate.value == estimate.high


@given(n=st.integers(2, 60), seed=st.integers(0, 99))
def test_dr_with_the_true_rewards_has_no_weighted_noise(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    world = world_of(rng, n)
    expected = rng.random(3 * n)
    log = Interactions(
        world.log.batch, world.log.chosen, world.log.propensity, expected[world.log.chosen], world.log.pmf
    )
    direct = (world.pmf * expected).reshape(n, 3).sum(1)
    skewness = stats.skew(direct) / np.sqrt(n) if n > 2 else 0.0
    low, high = skewed(direct.mean(), stats.sem(direct), skewness, n=n, level=0.95)
    estimate = dr(dr_sums(log, world.pmf, expected))
    assert [estimate.value, estimate.low, estimate.high] == pytest.approx([direct.mean(), low, high])


def test_dr_is_narrower_than_ips_when_the_model_is_good() -> None:
    world = world_of(np.random.default_rng(0), 2_000)
    truth = np.tile((np.arange(3) + 1.0) / 5.0, 2_000).astype(np.float64)
    robust = dr(dr_sums(world.log, world.pmf, truth))
    plain = ips(ips_sums(weights_of(world.log, world.pmf), world.log.reward))
    assert robust.high - robust.low < 0.9 * (plain.high - plain.low)


def test_snips_without_any_support_is_no_estimate() -> None:
    assert snips(SnipsSums.of(np.zeros(5), np.ones(5))) is None


@pytest.mark.parametrize("heavy", [0, 1], ids=["first shard", "second shard"])
def test_a_row_that_carries_the_log_is_named_from_whichever_shard_it_comes(heavy: int) -> None:
    shards = [np.ones(100), np.ones(100)]
    shards[heavy][7] = 60.0
    merged = MeanSums.of(shards[0], shards[0]) + MeanSums.of(shards[1], shards[1])
    assert "one row carries 23% of the weight" in merged.doubts()


def test_a_mean_of_nothing_is_refused() -> None:
    with pytest.raises(SupportError, match="no rows"):
        _ = MeanSums().mean


def test_diagnostics_by_hand() -> None:
    found = diagnostics(LOG, weights_of(LOG, PMF))
    assert (found.rows, found.unused, found.largest_weight) == (3, 0.0, pytest.approx(3.0))
    assert found.mean_weight == pytest.approx(5.5 / 3)
    assert found.mean_weight_error == pytest.approx(stats.sem([2.0, 0.5, 3.0]))
    assert found.ess_share == pytest.approx(found.ess / 3)
    assert found.top_share == pytest.approx(3 / 5.5)
    assert (found.smallest_propensity, found.mean_actions) == (0.25, pytest.approx(7 / 3))
    assert found.mean_inverse == pytest.approx((4 + 2.5 + 1 / 0.3) / 3)


@given(n=st.integers(1, 80), seed=st.integers(0, 99), zero=st.floats(0, 1))
def test_histogram_counts_every_positive_weight_in_its_bin(n: int, seed: int, zero: float) -> None:
    rng = np.random.default_rng(seed)
    world = world_of(rng, n)
    weights = rng.lognormal(sigma=3.0, size=n) * (rng.random(n) >= zero)
    found = diagnostics(world.log, weights)
    assert sum(count for _, _, count in found.histogram) == int((weights > 0).sum())
    assert found.unused == pytest.approx(float((weights == 0).mean()))
    for low, high, count in found.histogram:
        assert abs(int(((weights >= low) & (weights < high)).sum()) - count) == 0
