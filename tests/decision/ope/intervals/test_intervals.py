from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from scipy import integrate, stats

from decision.errors import FieldError
from decision.ope.intervals.betting import Bets
from decision.ope.intervals.bootstrap import GROUPS, GroupSums, bootstrap, replicates
from decision.ope.intervals.clopper_pearson import clopper_pearson
from decision.ope.intervals.confidence_sequence import log_wealth, lower_bound
from decision.ope.intervals.doubly_robust_sequence import difference_terms, sequence_sums, value_terms
from decision.ope.intervals.empirical_bernstein import empirical_bernstein
from decision.ope.intervals.simultaneous import simultaneous
from decision.ope.rows import Rows
from decision.ope.sums.means import MeanSums
from tests.contracts.estimator import world_of


def sums_of(terms: Any) -> MeanSums:
    return MeanSums.of(np.asarray(terms, dtype=float), np.ones(len(terms)))


def test_empirical_bernstein_by_hand() -> None:
    terms = np.array([0.0, 1.0, 1.0, 0.5])
    found = empirical_bernstein(sums_of(terms), low=0.0, high=1.0, level=0.9)
    logarithm = math.log(4 / 0.1)
    half = math.sqrt(2 * terms.var(ddof=1) * logarithm / 4) + 7 * logarithm / 9
    assert (found.low, found.high) == (max(0.625 - half, 0.0), min(0.625 + half, 1.0))
    many = empirical_bernstein(sums_of(np.tile(terms, 500)), low=0.0, high=1.0)
    assert 0.55 < many.low < 0.625 < many.high < 0.7


def test_clopper_pearson_is_exact_for_coins() -> None:
    found = clopper_pearson(sums_of([1.0] * 7 + [0.0] * 13), largest=1.0)
    wanted = stats.binomtest(7, 20).proportion_ci(0.95, method="exact")
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high))
    assert clopper_pearson(sums_of([0.0] * 9), largest=1.0).low == 0.0
    assert clopper_pearson(sums_of([1.0] * 9), largest=1.0).high == 1.0


def test_bootstrap_of_a_mean_has_its_standard_error() -> None:
    """Two estimates of one spread, 1,024 groups and 4,000 replicates: 10% is beyond 4 standard errors of 2.5%."""
    rng = np.random.default_rng(0)
    n = 60_000
    columns = np.stack([np.ones(n), rng.exponential(size=n)])
    groups = GroupSums.of(columns, rng.integers(GROUPS, size=n))
    low, high = bootstrap(groups, lambda s: s[:, 1] / s[:, 0], rng, count=4_000)
    half = 1.96 * columns[1].std() / math.sqrt(n)
    assert (high - low) / 2 == pytest.approx(half, rel=0.1)
    assert low < columns[1].mean() < high


def test_bootstrap_of_a_ratio_agrees_with_resampling_rows_one_by_one() -> None:
    rng = np.random.default_rng(1)
    weights, reward = rng.lognormal(size=800), rng.random(800)
    columns = np.stack([weights, weights * reward])
    found = bootstrap(
        GroupSums.of(columns, rng.integers(GROUPS, size=800)), lambda s: s[:, 1] / s[:, 0], rng, count=2_000
    )
    picks = rng.integers(800, size=(2_000, 800))
    plain = columns[1][picks].sum(1) / columns[0][picks].sum(1)
    wanted = np.quantile(plain, [0.025, 0.975])
    assert found[1] - found[0] == pytest.approx(wanted[1] - wanted[0], rel=0.15)


def test_groups_merge_to_the_same_bits() -> None:
    rng = np.random.default_rng(2)
    columns, group = rng.normal(size=(2, 500)), rng.integers(8, size=500)
    whole = GroupSums.of(columns, group, 8)
    parts = [GroupSums.of(columns[:, rows], group[rows], 8) for rows in np.array_split(rng.permutation(500), 3)]
    assert ((parts[0] + parts[1] + parts[2]).exact.wholes() == whole.exact.wholes()).all()
    assert (
        replicates(whole.sums, np.random.default_rng(1), 5) == replicates(whole.sums, np.random.default_rng(1), 5)
    ).all()


@pytest.mark.parametrize(("s", "v"), [(0.0, 0.0), (3.0, 2.0), (-2.0, 5.0), (30.0, 40.0)])
def test_wealth_is_the_average_over_bets(s: float, v: float) -> None:
    # Over l = 1 - u with the gamma density of u cut to (0, 1], shape 1 and rate 1.
    scale, _ = integrate.quad(lambda u: math.exp(-u), 0, 1)
    mixed, _ = integrate.quad(
        lambda u: math.exp(-u) / scale * math.exp((1 - u) * s - v * (-math.log(u) - (1 - u))), 1e-12, 1
    )
    assert float(log_wealth(np.array(s), np.array(v))) == pytest.approx(math.log(mixed), abs=1e-6)


def test_lower_bound_is_where_the_wealth_passes() -> None:
    terms = np.random.default_rng(3).random(400)
    total, square = float(terms.sum()), float((terms**2).sum())
    bound = lower_bound(400, total, square, below=0.0, smallest=0.0, largest=1.0, alpha=0.05)
    assert 0.35 < bound < terms.mean()
    for mean, beyond in ((bound - 1e-5, True), (bound + 1e-5, False)):
        s, v = (total - 400 * mean) / mean, float(((terms - mean) ** 2).sum()) / mean**2
        assert (float(log_wealth(np.array(s), np.array(v))) > math.log(20)) is beyond


def test_nothing_is_known_before_the_first_row() -> None:
    assert lower_bound(0, 0.0, 0.0, below=1.0, smallest=-1.0, largest=1.0, alpha=0.05) == -1.0
    assert lower_bound(1, 0.5, 0.25, below=0.0, smallest=0.0, largest=1.0, alpha=0.05) == 0.0


def test_betting_is_tighter_than_its_bound_and_merges_to_the_same_bits() -> None:
    terms = (np.random.default_rng(4).random(1_000) < 0.3).astype(float)
    grid = np.linspace(0.005, 0.995, 199)
    whole = Bets.of(terms, below=0.0, grid=grid)
    parts = Bets.of(terms[:400], below=0.0, grid=grid) + Bets.of(terms[400:], below=0.0, grid=grid)
    assert (whole.logs == parts.logs).all()
    bound = lower_bound(
        1_000, float(terms.sum()), float((terms**2).sum()), below=0.0, smallest=0.0, largest=1.0, alpha=0.025
    )
    assert bound - 0.006 < whole.lower_bound(0.025) < terms.mean()


def test_bounded_terms_are_bounded_and_unbiased() -> None:
    """Means of 200,000 rows miss by 4 standard errors with probability 6e-5 each."""
    rng = np.random.default_rng(5)
    world = world_of(rng, 200_000)
    rows = Rows.of(world.log, world.pmf, world.expected)
    old = Rows.of(world.log, world.log.pmf, world.expected)
    for limit in (0.3, 5.0):
        lower, upper = value_terms(rows, low=0.0, high=1.0, limit=limit)
        assert min(lower.min(), upper.min()) >= -limit
        for terms, truth in ((lower, world.value), (upper, 1 - world.value)):
            assert abs(terms.mean() - truth) < 4 * terms.std() / math.sqrt(200_000)
        lift = world.value - float((world.log.pmf * np.tile([0.2, 0.4, 0.6], 200_000)).sum() / 200_000)
        lower, upper = difference_terms(rows, old, low=0.0, high=1.0, limit=limit)
        assert min(lower.min(), upper.min()) >= -limit - 1
        for terms, truth in ((lower, lift), (upper, -lift)):
            assert abs(terms.mean() - truth) < 4 * terms.std() / math.sqrt(200_000)


def test_a_log_without_whole_distributions_has_a_sequence_without_a_model() -> None:
    world = world_of(np.random.default_rng(6), 500)
    rows = Rows.of(world.log, world.pmf, world.expected)
    blind = Rows.of(dataclasses.replace(world.log, pmf=np.full(1_500, np.nan)), world.pmf)
    lower, _ = value_terms(blind, low=0.0, high=1.0)
    np.testing.assert_allclose(lower, rows.weight * rows.reward)
    with pytest.raises(FieldError, match="logging distribution"):
        difference_terms(blind, blind, low=0.0, high=1.0)


def stopped_misses(logs: int, rows: int, seed: int, *, paired: bool) -> int:
    """Return how many logs ever see a sequence that leaves the truth out, looked at after every 10 rows."""
    rng = np.random.default_rng(seed)
    missed = 0
    for _ in range(logs):
        world = world_of(rng, rows)
        new = Rows.of(world.log, world.pmf, world.expected)
        truth = world.value
        terms = value_terms(new, low=0.0, high=1.0)
        below = 5.0
        if paired:
            old = Rows.of(world.log, world.log.pmf, world.expected)
            truth -= float((world.log.pmf * np.tile([0.2, 0.4, 0.6], rows)).sum() / rows)
            terms, below = difference_terms(new, old, low=0.0, high=1.0), 6.0
        total = None
        for start in range(0, rows, 10):
            part = sequence_sums(
                (terms[0][start : start + 10], terms[1][start : start + 10]),
                low=0.0,
                high=1.0,
                below=below,
                difference=paired,
            )
            total = part if total is None else total + part
            low, high = total.interval()
            if not low <= truth <= high:
                missed += 1
                break
    return missed


@pytest.mark.statistical
@pytest.mark.parametrize("paired", [False, True])
def test_a_sequence_holds_at_the_worst_moment(paired: bool) -> None:
    """The chance to ever miss is at most 5%: 10 of 60 logs or more do with probability 7e-4 at most."""
    assert stopped_misses(60, 300, 7, paired=paired) < 10


def test_segments_hold_together() -> None:
    rng = np.random.default_rng(8)
    parts = {name: sums_of(rng.random(50)) for name in "abcd"}
    found = simultaneous(parts, level=0.95)
    assert found["b"].low == parts["b"].interval(1 - 0.05 / 4)[0]
    assert simultaneous({}) == {}


def test_bad_settings_are_named() -> None:
    for call, field in (
        (lambda: empirical_bernstein(sums_of([1.0, 2.0]), low=1.0, high=1.0), "low"),
        (lambda: empirical_bernstein(sums_of([1.0, 2.0]), low=0.0, high=2.0, level=1.0), "level"),
        (lambda: clopper_pearson(sums_of([1.0, 2.0]), largest=0.5), "largest"),
        (lambda: replicates(np.ones((1, 4)), np.random.default_rng(0), 1), "count"),
        (lambda: lower_bound(1, 1.0, 1.0, below=0.0, smallest=0.0, largest=1.0, alpha=0.0), "alpha"),
        (lambda: Bets.of(np.ones(2), below=0.0, grid=np.array([0.5, 0.4])), "grid"),
        (lambda: Bets.of(-np.ones(2), below=0.0, grid=np.array([0.4, 0.5])), "terms"),
        (lambda: simultaneous({}, level=0.0), "level"),
        (lambda: sequence_sums((-np.ones(2), np.ones(2)), low=0, high=1, below=0.5), "below"),
    ):
        with pytest.raises(FieldError) as caught:
            call()
        assert caught.value.field == field
