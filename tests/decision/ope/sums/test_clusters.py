"""Intervals where a user's decisions depend on one another."""

from __future__ import annotations

import math

import numpy as np
import pytest

from decision.batch import Floats, Ints
from decision.ope.estimators.snips import SnipsSums, snips
from decision.ope.sums.clusters import CLUSTERS, clusters_of
from decision.ope.sums.means import MeanSums


def clustered(terms: Floats, cluster: Ints, counts: Floats | None = None) -> MeanSums:
    return MeanSums.of(terms, np.ones(len(terms)), counts, cubes=True, clusters=cluster)


def test_rows_of_a_user_that_say_the_same_count_once() -> None:
    once = np.random.default_rng(0).exponential(size=60)
    user = np.repeat(np.arange(60), 25)
    whole = MeanSums.of(once, np.ones(60), cubes=True)
    found = clustered(once[user], user)
    assert found.interval(0.95) == pytest.approx(whole.interval(0.95))
    assert found.error == pytest.approx(whole.error)
    alone = MeanSums.of(once[user], np.ones(len(user)), cubes=True)
    assert found.error == pytest.approx(alone.error * 5.0, rel=0.01)


def test_users_of_one_row_each_are_independent_rows() -> None:
    terms = np.random.default_rng(1).lognormal(size=300)
    whole = MeanSums.of(terms, np.ones(300), cubes=True)
    assert clustered(terms, np.arange(300)).interval(0.9) == pytest.approx(whole.interval(0.9))


def test_the_ratio_of_sums_has_the_same_interval() -> None:
    rng = np.random.default_rng(2)
    once, user = rng.random(80), np.repeat(np.arange(80), 10)
    weight = rng.random(80) + 0.5
    found = snips(SnipsSums.of(weight[user], once[user], clusters=user))
    assert found is not None
    value = float(weight @ once / weight.sum())
    error = math.sqrt(np.square(weight * (once - value)).sum() * 80 / 79) / weight.sum()
    assert found.value == pytest.approx(value)
    assert (found.high - found.low) / 2.0 == pytest.approx(1.9905 * error, rel=1e-4)  # Student's, 79 degrees


@pytest.mark.parametrize("cut", [1, 13, 499])
def test_shards_merge_to_the_same_bits(cut: int) -> None:
    rng = np.random.default_rng(3)
    terms, user = rng.standard_normal(500), rng.integers(0, 40, 500)
    whole = clustered(terms, user)
    parts = clustered(terms[cut:], user[cut:]) + MeanSums() + clustered(terms[:cut], user[:cut])
    assert parts.estimate(0.95) == whole.estimate(0.95)


def test_settled_sums_are_plain_and_say_the_same() -> None:
    rng = np.random.default_rng(5)
    found = clustered(rng.standard_normal(100), rng.integers(0, 20, 100))
    settled = found.settle()
    assert settled.clusters is None
    assert settled.estimate(0.99) == found.estimate(0.99)
    plain = MeanSums.of(np.arange(5.0), np.ones(5))
    assert plain.settle() == plain


def test_a_shard_without_clusters_leaves_none() -> None:
    terms = np.arange(4.0)
    assert (clustered(terms, np.arange(4)) + MeanSums.of(terms, np.ones(4))).clusters is None


def test_one_user_tells_of_nobody_else_and_few_are_named() -> None:
    one = clustered(np.arange(50.0), np.zeros(50, np.int64))
    assert one.interval(0.95) == (-math.inf, math.inf)
    few = clustered(np.arange(50.0), np.repeat([0, 1, 2, 3, 4], 10))
    assert "those of 5 users" in few.doubts()[-1]


def test_a_user_is_in_one_cluster_and_users_spread_over_all() -> None:
    names = [f"user-{number}" for number in range(20_000)]
    found = clusters_of(names, "feed")
    assert (found == clusters_of(names, "feed")).all()
    assert (found != clusters_of(names, "other")).mean() > 0.99
    assert (found.min(), found.max()) == (0, CLUSTERS - 1)
    assert np.bincount(found, minlength=CLUSTERS).max() < 25


def test_the_interval_holds_the_truth_where_that_of_rows_does_not() -> None:
    """400 logs of 120 users with 1 to 40 rows; .95 of 400 covers, 3.6 standard deviations below is .91 (p < 2e-4)."""
    rng = np.random.default_rng(4)
    by_user = by_row = 0
    for _ in range(400):
        rows = rng.integers(1, 41, 120)
        user = np.repeat(np.arange(120), rows)
        terms = rng.exponential(size=120)[user] - 1.0 + 0.5 * rng.standard_normal(len(user))
        low, high = clustered(terms, user).interval(0.95)
        by_user += low <= 0.0 <= high
        low, high = MeanSums.of(terms, np.ones(len(terms)), cubes=True).interval(0.95)
        by_row += low <= 0.0 <= high
    assert by_user >= 0.91 * 400
    assert by_row <= 0.6 * 400
