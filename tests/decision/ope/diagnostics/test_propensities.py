from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy import stats

import pipelines
from decision.batch import Floats, Ints
from decision.draw import draw, seed_of
from decision.exploration.mix import with_floor
from decision.exploration.squarecb import squarecb
from decision.ope.diagnostics.propensities import check_draws, check_identities, chi_square_of_ranks
from decision.ragged import normalise

SAMPLE = Path(pipelines.__file__).parent / "formats" / "data" / "open_bandit"
ITEMS = {"all": 80, "men": 34, "women": 46}


class Log(NamedTuple):
    pmf: Floats
    offsets: Ints
    index: Ints
    propensity: Floats
    seeds: Ints

    def with_index(self, index: Ints) -> Log:
        return self._replace(index=index, propensity=self.pmf[self.offsets[:-1] + index])


def log_of(rng: np.random.Generator, n: int, *, largest: int = 12, name: str = "e") -> Log:
    """Return a correct log of SquareCB over 1 to `largest` actions."""
    sizes = rng.integers(1, largest + 1, n)
    offsets = np.concatenate(([0], np.cumsum(sizes))).astype(np.int64)
    pmf = with_floor(squarecb(rng.random(int(offsets[-1])), offsets, gamma=20.0), offsets, 0.05)
    seeds = np.array([seed_of("loop", f"{name}{i}") for i in range(n)])
    index = np.array([draw(pmf[offsets[i] : offsets[i + 1]], int(seeds[i])) for i in range(n)])
    return Log(pmf, offsets, index, pmf[offsets[:-1] + index], seeds)


def test_correct_log_passes_every_check() -> None:
    log = log_of(np.random.default_rng(0), 2_000)
    report = check_draws(*log)
    assert (report.ok, report.reasons) == (True, ())
    assert report.numbers["redrawn"] == report.numbers["decisions"] == 2_000
    assert report.numbers["unsupported"] == 0.0
    identities = check_identities(log.propensity, np.diff(log.offsets))
    assert (identities.ok, identities.reasons) == (True, ())
    assert identities.numbers["mean_weight"] == pytest.approx(1.0, abs=4 * identities.numbers["mean_weight_error"])


def test_a_single_other_choice_is_found() -> None:
    log = log_of(np.random.default_rng(1), 500)
    row = int(np.flatnonzero(np.diff(log.offsets) > 1)[0])
    index = log.index.copy()
    index[row] = (index[row] + 1) % (log.offsets[row + 1] - log.offsets[row])
    report = check_draws(*log.with_index(index))
    assert report.reasons == ("1 of 500 draws are not those of their seeds",)


def test_a_propensity_that_is_not_the_pmfs_is_found() -> None:
    log = log_of(np.random.default_rng(2), 500)
    propensity = log.propensity.copy()
    propensity[7] *= 0.999
    report = check_draws(*log._replace(propensity=propensity))
    assert report.reasons == ("1 propensities are not the pmf's value at the chosen action",)


def test_a_pmf_that_does_not_sum_to_one_is_found() -> None:
    log = log_of(np.random.default_rng(3), 500)
    pmf = log.pmf.copy()
    pmf[log.offsets[9] : log.offsets[10]] *= 1.01
    report = check_draws(*log._replace(pmf=pmf, propensity=pmf[log.offsets[:-1] + log.index]))
    assert "1 pmfs do not sum to 1 or go below 0" in report.reasons


def test_choices_of_another_policy_are_found_without_seeds() -> None:
    """The logged pmf claims 10% more exploration than there was."""
    log = log_of(np.random.default_rng(4), 5_000)
    claimed = with_floor(log.pmf, log.offsets, 0.1)
    assert chi_square_of_ranks(log.pmf, log.offsets, log.index)[2] > 1e-4
    assert chi_square_of_ranks(claimed, log.offsets, log.index)[2] < 1e-6


def test_chi_square_of_equal_pmfs_is_pearsons() -> None:
    rng = np.random.default_rng(5)
    pmf = np.array([0.4, 0.3, 0.2, 0.1])
    index = rng.choice(4, size=1_000, p=pmf)
    statistic, freedom, p_value = chi_square_of_ranks(np.tile(pmf, 1_000), np.arange(1_001) * 4, index)
    reference = stats.chisquare(np.bincount(index, minlength=4), 1_000 * pmf)
    assert freedom == 3
    assert (statistic, p_value) == pytest.approx((reference.statistic, reference.pvalue), rel=1e-6)


@pytest.mark.statistical
def test_p_values_of_correct_logs_are_uniform() -> None:
    """300 correct logs of 200 decisions with 1 to 40 actions, each with its own pmfs: a uniform sample fails with
    probability 1e-4."""
    rng = np.random.default_rng(6)
    p_values = []
    for _ in range(300):
        sizes = rng.integers(1, 41, 200)
        offsets = np.concatenate(([0], np.cumsum(sizes))).astype(np.int64)
        pmf = normalise(rng.gamma(0.5, size=int(offsets[-1])) + 1e-3, offsets)
        sums = [pmf[low:high].cumsum() for low, high in pairwise(offsets)]
        index = np.array([min(int(np.searchsorted(c, rng.random(), side="right")), c.size - 1) for c in sums])
        p_values.append(chi_square_of_ranks(pmf, offsets, index)[2])
    assert stats.kstest(p_values, "uniform").pvalue > 1e-4


def test_decisions_without_a_choice_say_nothing() -> None:
    """Deterministic pmfs can only be followed: no degrees of freedom, and what they cannot draw is counted."""
    pmf, offsets = np.tile((1.0, 0.0, 0.0), 50), np.arange(51) * 3
    seeds = np.array([seed_of("loop", f"d{i}") for i in range(50)])
    report = check_draws(pmf, offsets, np.zeros(50, np.int64), np.ones(50), seeds)
    assert report.ok
    assert report.numbers["degrees"] == 0.0
    assert report.numbers["unsupported"] == pytest.approx(2 / 3)
    assert check_identities(np.ones(50), np.ones(50, np.int64)).ok


@pytest.mark.parametrize("factor", [0.8, 1.25])
def test_propensities_that_are_off_by_a_factor_are_found(factor: float) -> None:
    rng = np.random.default_rng(7)
    pmf = np.array([0.5, 0.3, 0.2])
    propensity = factor * pmf[rng.choice(3, size=5_000, p=pmf)]
    report = check_identities(propensity, np.full(5_000, 3))
    assert not report.ok
    assert report.reasons[0].startswith("mean weight of the uniform policy is")


@pytest.mark.parametrize("wrong", [0.0, -0.1, 1.1, np.nan, np.inf])
def test_propensity_that_is_no_probability_is_found(wrong: float) -> None:
    report = check_identities(np.array([0.5, wrong, 0.5]), np.full(3, 2))
    assert (report.ok, report.reasons) == (False, ("1 propensities are not in (0, 1]",))


@pytest.mark.parametrize("n", [0, 1, 2, 3, 10])
def test_a_few_uniform_rows_are_no_reason_for_doubt(n: int) -> None:
    report = check_identities(np.full(n, 0.1), np.full(n, 10))
    assert (report.ok, report.numbers["rows"]) == (True, float(n))


def test_an_empty_log_passes() -> None:
    none = np.zeros(0, np.int64)
    assert check_draws(np.zeros(0), np.array([0]), none, np.zeros(0), none).ok


@pytest.mark.parametrize("campaign", ITEMS)
@pytest.mark.parametrize("policy", ["random", "bts"])
def test_of_the_open_bandit_logs_only_womens_thompson_sampling_fails(policy: str, campaign: str) -> None:
    """Known from the published files: mean(1/p) is 144 for 46 items there, and near the number of items elsewhere."""
    table = pq.read_table(SAMPLE / policy / campaign / f"{campaign}.parquet", columns=["propensity_score"])
    propensity = table["propensity_score"].to_numpy()
    report = check_identities(propensity, np.full(propensity.size, ITEMS[campaign]))
    assert report.ok == ((policy, campaign) != ("bts", "women")), report.reasons
    if not report.ok:
        assert report.numbers["mean_inverse"] == pytest.approx(144.2, abs=0.1)
        assert "one row carries" in report.reasons[-1]
