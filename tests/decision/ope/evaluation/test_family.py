"""Closed forms of the estimators, and how each becomes another one at the ends of its parameter."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from decision.batch import Floats, Interactions
from decision.errors import FieldError
from decision.ope.estimate import Estimate
from decision.ope.estimators.balanced import balanced
from decision.ope.estimators.cab import cab_terms
from decision.ope.estimators.clipped import clipped_terms
from decision.ope.estimators.cressie_read import CressieReadSums, cressie_read
from decision.ope.estimators.direct_method import NOT_CORRECTED
from decision.ope.estimators.dr import dr_terms
from decision.ope.estimators.dros import shrinkage_terms
from decision.ope.estimators.mips import group_weights
from decision.ope.estimators.mrdr import mrdr_row_weights
from decision.ope.estimators.registry import Mean, estimator_of
from decision.ope.estimators.replay_method import MatchingSums, matching
from decision.ope.estimators.sndr import SndrSums, sndr
from decision.ope.estimators.switch_dr import switch_terms
from decision.ope.evaluation.family import Plan, Shard
from decision.ope.evaluation.results import results
from decision.ope.evaluation.sums import evaluation_sums
from decision.ope.rows import Rows
from decision.ope.selection.slope import slope
from decision.ope.sums.means import MeanSums
from tests.contracts.estimator import World, world_of
from tests.decision.ope.estimators.test_estimators import EXPECTED, LOG, PMF

ROWS = Rows.of(LOG, PMF, EXPECTED)
DIRECT = np.array([0.5, 0.16, 0.36])


def rows_of(world: World) -> Rows:
    return Rows.of(world.log, world.pmf, world.expected)


def terms_of(name: str, rows: Rows) -> Floats:
    one = estimator_of(name)
    assert isinstance(one, Mean)
    return one.terms(rows, rows.weight if one.weights is None else one.weights(rows))


def test_rows_by_hand() -> None:
    assert ROWS.weight == pytest.approx([2.0, 0.5, 3.0])
    assert ROWS.direct == pytest.approx(DIRECT)
    assert ROWS.residual == pytest.approx([0.2, -0.2, 0.1])


def test_terms_by_hand() -> None:
    assert clipped_terms(ROWS, 2.5) == pytest.approx([2.0, 0.0, 1.25])
    assert switch_terms(ROWS, 2.5) == pytest.approx(np.add(DIRECT, [0.4, -0.1, 0.0]))
    shrunk = [2 * 4 / (4 + 4), 0.5 * 4 / (0.25 + 4), 3 * 4 / (9 + 4)]
    assert shrinkage_terms(ROWS, 4.0) == pytest.approx(DIRECT + shrunk * ROWS.residual)
    # M = 1.5: pi - M p is .125 at (0, 0), .15 at (1, 0) and .45 at (2, 1); below 0 elsewhere.
    blended = np.array([0.125 * 0.8, 0.15 * 0.1, 0.45 * 0.4])
    assert cab_terms(ROWS, 1.5) == pytest.approx(np.add(blended, [1.5, 0.0, 0.75]))


def test_group_weights_by_hand() -> None:
    code = np.array([0, 1, 0, 0, 1, 5, 5])
    rows = dataclasses.replace(ROWS, code=code)
    assert group_weights(rows) == pytest.approx([2.0, 0.8 / 0.7, 1.0])
    assert terms_of("mips", rows) == pytest.approx([2.0, 0.0, 0.5])
    assert terms_of("offcem", rows) == pytest.approx(np.add(DIRECT, [0.4, -0.2 * 0.8 / 0.7, 0.1]))


def test_sndr_by_hand() -> None:
    found = sndr(SndrSums.of(ROWS), level=0.9)
    errors = np.array([0.4, -0.1, 0.3])
    assert found is not None
    assert found.value == pytest.approx(DIRECT.mean() + errors.sum() / 5.5)
    correction = errors.sum() / 5.5
    influence = (DIRECT - DIRECT.mean()) / 3 + (errors - correction * ROWS.weight) / 5.5
    assert found.high - found.value == pytest.approx(1.6448536 * math.sqrt((influence**2).sum()))


def test_matching_by_hand_says_that_the_log_is_not_uniform() -> None:
    found = matching(MatchingSums.of(ROWS))
    assert found is not None
    assert found.value == pytest.approx((0.5 * 1.0 + 0.2 * 0.0 + 0.9 * 0.5) / 1.6)
    assert any("not drawn uniformly" in reason for reason in found.reasons)


def test_matching_on_a_uniform_log_is_the_mean_of_the_rows_that_agree() -> None:
    rng = np.random.default_rng(0)
    world = world_of(rng, 300)
    pick = rng.integers(3, size=300)
    uniform = np.full(900, 1 / 3)
    log = Interactions(world.log.batch, np.arange(300) * 3 + pick, np.full(300, 1 / 3), rng.random(300), uniform)
    first = np.tile([1.0, 0.0, 0.0], 300)
    found = matching(MatchingSums.of(Rows.of(log, first)))
    assert found is not None
    assert found.value == pytest.approx(log.reward[pick == 0].mean())
    assert not any("uniform" in reason for reason in found.reasons)


@given(n=st.integers(2, 40), seed=st.integers(0, 99))
def test_ends_of_the_parameters(n: int, seed: int) -> None:
    world = world_of(np.random.default_rng(seed), n)
    rows = rows_of(world)
    robust = dr_terms(world.log, world.pmf, world.expected)
    plain = rows.weight * rows.reward
    for terms, wanted in (
        (switch_terms(rows, 1e9), robust),
        (switch_terms(rows, 1e-9), rows.direct),
        (shrinkage_terms(rows, 1e18), robust),
        (shrinkage_terms(rows, 1e-18), rows.direct),
        (cab_terms(rows, 1e9), plain),
        (cab_terms(rows, 1e-12), rows.direct),
        (clipped_terms(rows, 1e9), plain),
        (terms_of("mips", dataclasses.replace(rows, code=np.arange(3 * n))), plain),
        (terms_of("mips", dataclasses.replace(rows, code=np.zeros(3 * n, dtype=np.int64))), rows.reward),
        (terms_of("offcem", dataclasses.replace(rows, code=np.arange(3 * n))), robust),
    ):
        np.testing.assert_allclose(terms, wanted, atol=1e-9)


def test_the_direct_method_always_says_that_its_interval_is_too_narrow() -> None:
    plan = Plan(low=0.0, high=1.0, bootstrap=0, buckets=0)
    found = results(evaluation_sums(Shard(rows=ROWS), plan), plan).estimates["dm"]
    assert found is not None
    assert found.value == pytest.approx(DIRECT.mean())
    assert NOT_CORRECTED in found.reasons


def test_rows_that_stand_for_several_count_as_several() -> None:
    world = world_of(np.random.default_rng(1), 40)
    rows = rows_of(world)
    twice = np.repeat(np.arange(40), np.tile([1, 2], 20))
    flat = (twice[:, None] * 3 + np.arange(3)).ravel()
    repeated = Rows.of(world.log.take(twice), world.pmf[flat], world.expected[flat])
    counted = dataclasses.replace(rows, counts=np.tile([1.0, 2.0], 20))
    for sums in (
        lambda r: MeanSums.of(r.weight * r.reward, r.weight, r.counts).estimate(0.95).value,
        lambda r: sndr(SndrSums.of(r)).value,
        lambda r: matching(MatchingSums.of(r)).value,
    ):
        assert sums(counted) == pytest.approx(sums(repeated))


def test_mrdr_weights_make_the_variance_of_dr_least() -> None:
    """The model that minimises the weighted squares has the least variance of all constants, up to sampling."""
    rng = np.random.default_rng(2)
    n, p = 200_000, np.array([0.1, 0.4])
    kind = rng.integers(2, size=n)
    drawn = rng.random(n) < p[kind]
    reward = (rng.random(n) < np.array([0.9, 0.2])[kind]).astype(float)
    batch = world_of(rng, n, k=2).log.batch
    propensity = np.where(drawn, p[kind], 1 - p[kind])
    logging = np.stack([p[kind], 1 - p[kind]], 1).ravel()
    log = Interactions(batch, np.arange(n) * 2 + ~drawn, propensity, reward, logging)
    pmf = np.tile([1.0, 0.0], n)
    weights = mrdr_row_weights(Rows.of(log, pmf))
    assert (weights[~drawn] == 0).all()
    best = (weights * reward).sum() / weights.sum()

    def variance(q: float) -> float:
        return float(dr_terms(log, pmf, np.full(2 * n, q)).var())

    plain = reward[drawn].mean()
    assert variance(best) < variance(plain)
    assert all(variance(best) < variance(best + step) for step in (-0.2, -0.1, 0.1, 0.2))


def test_balanced_weights_of_two_generations_by_hand() -> None:
    other = np.array([0.75, 0.25, 0.2, 0.4, 0.4, 0.5, 0.5])
    mixed = balanced(LOG, [LOG.pmf, other], [2, 1])
    assert mixed.pmf == pytest.approx((2 * LOG.pmf + other) / 3)
    assert mixed.propensity == pytest.approx(mixed.pmf[LOG.chosen])
    same = balanced(LOG, [LOG.pmf, LOG.pmf], [5, 7])
    assert same.pmf == pytest.approx(LOG.pmf)


@given(rows=st.lists(st.integers(1, 100_000), min_size=1, max_size=12))
@example(rows=[17, 35, 46, 39, 10])
def test_an_action_that_every_generation_was_certain_of_stays_a_probability(rows: list[int]) -> None:
    certain = np.zeros(7)
    certain[LOG.chosen] = 1.0
    mixed = balanced(LOG, [certain] * len(rows), rows)
    assert mixed.propensity.max() <= 1.0
    assert mixed.propensity == pytest.approx(1.0)


def test_balanced_weights_are_unbiased_and_far_lighter() -> None:
    """300 logs of 400 rows; the mean misses the value by 4 standard errors with probability 6e-5."""
    rng = np.random.default_rng(3)
    generations = np.array([[0.98, 0.01, 0.01], [0.1, 0.1, 0.8]])
    pmf, means = np.array([0.1, 0.1, 0.8]), np.array([0.2, 0.4, 0.7])
    batch = world_of(rng, 400).log.batch
    plain, light, worst = [], [], []
    for _ in range(300):
        made = np.arange(400) % 2
        pick = (rng.random(400)[:, None] > generations[made].cumsum(1)).sum(1)
        reward = (rng.random(400) < means[pick]).astype(float)
        propensity = generations[made, pick]
        log = Interactions(batch, np.arange(400) * 3 + pick, propensity, reward, generations[made].ravel())
        target = np.tile(pmf, 400)
        mixed = balanced(log, [np.tile(g, 400) for g in generations], [200, 200])
        for found, entry in ((plain, log), (light, mixed)):
            weights = Rows.of(entry, target).weight
            found.append(float((weights * reward).mean()))
        worst.append(Rows.of(mixed, target).weight.max())
    truth = float(pmf @ means)
    assert abs(np.mean(light) - truth) < 4 * np.std(light) / math.sqrt(300)
    assert np.std(light) < 0.5 * np.std(plain)
    assert max(worst) < 2.0


def test_what_an_estimator_needs_and_does_not_get_is_named() -> None:
    unknown = dataclasses.replace(LOG, pmf=np.full(7, np.nan))
    blind = Rows.of(unknown, PMF)
    for call, field in (
        (lambda: cab_terms(Rows.of(unknown, PMF, EXPECTED), 2.0), "pmf"),
        (lambda: group_weights(dataclasses.replace(blind, code=np.zeros(7, dtype=np.int64))), "pmf"),
        (lambda: group_weights(ROWS), "code"),
        (lambda: terms_of("dm", blind), "expected"),
        (lambda: terms_of("mrdr", ROWS), "robust"),
        (lambda: Rows.of(LOG, PMF, code=np.zeros(6, dtype=np.int64)), "code"),
        (lambda: Rows.of(LOG, PMF, robust=EXPECTED[:-1]), "robust"),
        (lambda: estimator_of("dn"), "estimator"),
        (lambda: switch_terms(ROWS, 0.0), "tau"),
        (lambda: shrinkage_terms(ROWS, -1.0), "lam"),
        (lambda: cab_terms(ROWS, np.nan), "limit"),
        (lambda: Rows.of(LOG, PMF, EXPECTED[:-1]), "expected"),
        (lambda: Rows.of(LOG, PMF, counts=np.zeros(3)), "counts"),
        (lambda: balanced(LOG, [], []), "pmfs"),
        (lambda: slope({}), "estimates"),
    ):
        with pytest.raises(FieldError) as caught:
            call()
        assert caught.value.field == field


def at(value: float, half: float) -> Estimate:
    return Estimate(value, value - half, value + half, 0.95, 100, 100.0)


def test_slope_takes_the_narrowest_interval_that_meets_all_wider_ones() -> None:
    assert slope({100.0: at(1.0, 1.0), 10.0: at(1.1, 0.5), 1.0: at(1.2, 0.1)}) == 1.0
    assert slope({100.0: at(1.0, 0.2), 10.0: at(1.1, 0.1), 1.0: at(2.0, 0.01)}) == 10.0
    assert slope({100.0: at(1.0, 0.0), 10.0: at(5.0, 0.0)}) == 100.0
    assert slope({3.0: at(1.0, math.inf)}) == 3.0


# Values of `estimators.bandits.cressieread` 0.2.2 (smallest weight 0) on the weights and rewards of `known_rows`.
KNOWN = [
    (20, 9.0, 0.500657660640875, 0.12191690526365473, 0.8299672380074308),
    (20, math.inf, 0.4067471475, 0.1722477412755426, 0.740434897549441),
    (400, 9.0, 0.49179712019653177, 0.4340661133344403, 0.5508970522561145),
    (400, math.inf, 0.49710385321875, 0.4129597227840349, 0.5840281323330447),
]


def test_cressie_read_has_the_values_of_the_reference() -> None:
    rng = np.random.default_rng(5)
    for n, largest, value, low, high in KNOWN:
        weights = np.where(rng.random(n) < 0.8, rng.lognormal(sigma=0.5, size=n), 0.0).clip(0, 8).round(3)
        reward = rng.random(n).round(3)
        # One action of weight w and one of weight 0, drawn with probability 1/16.
        batch = world_of(rng.spawn(1)[0], n, k=2).log.batch
        log = Interactions(batch, np.arange(n) * 2, np.full(n, 1 / 16), reward, np.tile([1 / 16, 15 / 16], n))
        rows = Rows.of(log, np.stack([weights / 16, 1 - weights / 16], 1).ravel())
        found = cressie_read(CressieReadSums.of(rows, low=0.0, high=1.0, largest=largest))
        assert found is not None
        assert [found.value, found.low, found.high] == pytest.approx([value, low, high], rel=1e-9)
