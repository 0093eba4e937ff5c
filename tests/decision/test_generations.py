from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decision.batch import Batch, Interactions
from decision.errors import FieldError
from decision.generations import Tally, ages, effective_rows, sampling_rates, training_weights
from decision.options import DataRules
from tests.strategies import interactions_of

LOG = interactions_of(np.random.default_rng(0), 60)
AGE = np.repeat(np.arange(6)[::-1], 10)


def weights(**rules: object) -> np.ndarray:
    return training_weights(LOG, AGE, DataRules(**{"decay": 1.0, **rules}))  # type: ignore[arg-type]


def test_all_rows_count_alike_without_rules() -> None:
    assert weights().tolist() == [1.0] * 60


def test_decay_is_a_power_of_the_age() -> None:
    assert np.allclose(weights(decay=0.5), 0.5**AGE)


def test_window_keeps_the_newest_generations() -> None:
    assert (weights(generations=2) > 0).tolist() == (AGE < 2).tolist()


def test_warm_start_learns_from_the_newest_generation_alone() -> None:
    assert (weights(warm_start=True) > 0).tolist() == (AGE == 0).tolist()


def test_reservoir_keeps_of_older_rows_what_was_drawn_uniformly() -> None:
    """The log is uniform here, so every row is a uniform draw and counts in full."""
    kept = weights(generations=1, reservoir=3)
    assert np.allclose(kept, (AGE < 4).astype(float))


def test_reservoir_of_a_policy_with_a_floor_counts_the_floor() -> None:
    """Of 1 - .3 + .3 / K on the best action, (.3 / K) / p was a uniform draw; of any other action, all of it."""
    sizes = np.diff(LOG.batch.offsets)
    pmf = np.repeat(0.3 / sizes, sizes)
    pmf[LOG.batch.offsets[:-1]] += 0.7
    log = type(LOG)(LOG.batch, LOG.chosen, pmf[LOG.chosen], LOG.reward, pmf)
    first = LOG.chosen == LOG.batch.offsets[:-1]
    out = training_weights(log, np.full(60, 3), DataRules(decay=1.0, generations=1, reservoir=5))
    assert np.allclose(out[~first], 1.0)
    assert np.allclose(out[first], (0.3 / sizes / (0.7 + 0.3 / sizes))[first])


def test_importance_weights_are_one_on_a_uniform_log_and_clipped() -> None:
    assert np.allclose(weights(importance="clipped"), 1.0)
    rare = type(LOG)(LOG.batch, LOG.chosen, np.full(60, 1e-4), LOG.reward, LOG.pmf)
    rules = DataRules(decay=1.0, importance="clipped", clip=7.0)
    assert set(training_weights(rare, AGE, rules)) == {7.0}
    root = training_weights(rare, AGE, DataRules(decay=1.0, importance="sqrt", clip=1e9))
    assert np.allclose(root, np.sqrt(1e4 / np.diff(LOG.batch.offsets)))


def test_what_counts_next_to_nothing_is_left_out() -> None:
    assert set(training_weights(LOG, np.full(60, 40), DataRules(decay=0.8))) == {0.0}


@given(
    ends=st.lists(st.integers(0, 400), max_size=12),
    rows=st.integers(1, 300),
    minimum=st.integers(1, 100),
)
def test_ages_fall_by_one_at_a_time_and_generations_have_their_least_size(ends, rows, minimum) -> None:
    found = ages(ends, rows, minimum=minimum)
    assert found.shape == (rows,)
    assert found[-1] == 0
    assert set(np.diff(found)) <= {0, -1}
    sizes = np.bincount(found)
    assert (sizes[:-1] >= minimum).all() or len(sizes) == 1
    cuts = np.flatnonzero(np.diff(found)) + 1
    assert set(cuts.tolist()) <= set(ends)


def test_ages_count_trainings_since_the_row() -> None:
    assert ages([2, 4], 6, minimum=1).tolist() == [2, 2, 1, 1, 0, 0]
    assert ages([2, 4, 5], 6, minimum=2).tolist() == [2, 2, 1, 1, 0, 0]
    assert ages([6, 9], 6, minimum=1).tolist() == [0] * 6


def test_effective_rows_are_the_rows_at_full_weight() -> None:
    assert effective_rows(np.array([1.0, 0.5, 0.5])) == 2.0
    assert effective_rows(np.zeros(3)) == 0.0


def test_balance_is_the_closed_form() -> None:
    reward = np.repeat((1.0, 0.0), (45, 15))
    log = type(LOG)(LOG.batch, LOG.chosen, LOG.propensity, reward, LOG.pmf)
    tally = Tally()
    tally.add(log, np.full(60, 2.0))
    out = tally.balance()
    assert (out.positive_rate, out.minority_rows, out.effective_sample_size) == (0.75, 30.0, 60.0)
    assert out.importance_ess == pytest.approx(1.0)


def test_tally_of_chunks_is_that_of_all_rows() -> None:
    weight = np.linspace(0.0, 1.0, 60)
    whole, chunked = Tally(), Tally()
    whole.add(LOG, weight)
    for rows in np.split(np.arange(60), [7, 7, 40]):
        chunked.add(LOG.take(rows), weight[rows])
    assert (whole.rows, whole.counted, whole.effective_rows) == (60, 59, pytest.approx(effective_rows(weight)))
    assert (chunked.rows, chunked.counted) == (60, 59)
    assert chunked.effective_rows == pytest.approx(whole.effective_rows)
    assert chunked.mean_reward == pytest.approx(LOG.reward.mean())
    for name, value in msgspec.structs.asdict(whole.balance()).items():
        assert getattr(chunked.balance(), name) == pytest.approx(value)


def test_ages_of_some_rows_are_theirs_among_all() -> None:
    of = np.array([5, 0, 3])
    assert ages([2, 4], 6, minimum=1, of=of).tolist() == ages([2, 4], 6, minimum=1)[of].tolist()


def test_ages_that_do_not_fit_are_refused() -> None:
    for wrong in (np.zeros(3, np.int64), np.full(60, -1)):
        with pytest.raises(FieldError) as caught:
            training_weights(LOG, wrong, DataRules())
        assert caught.value.field == "age"


def test_contradictory_rules_are_refused() -> None:
    with pytest.raises(FieldError) as caught:
        DataRules(warm_start=True, average=3)
    assert caught.value.field == "warm_start"


def test_rates_of_a_sample_keep_as_many_rows_as_asked_and_thin_what_counts_less() -> None:
    rows, weight = np.array([100.0, 0.0, 10.0, 400.0]), np.array([0.25, 0.5, 0.5, 1.0])
    rates = sampling_rates(rows, weight, 218)
    assert rates == pytest.approx(218 / 430 * weight)
    assert sampling_rates(rows, weight, 500) == pytest.approx([0.9, 1.0, 1.0, 1.0])
    assert (sampling_rates(rows, weight, 0) == 1.0).all()
    assert (sampling_rates(rows, weight, 510) == 1.0).all()
    assert sampling_rates(np.zeros(0), np.zeros(0), 5).size == 0


@given(
    st.lists(st.tuples(st.integers(0, 10_000), st.floats(1e-3, 1.0)), min_size=1, max_size=30),
    st.integers(1, 20_000),
)
def test_rates_of_a_sample_make_its_size(days: list[tuple[int, float]], most: int) -> None:
    rows, weight = np.array(days, dtype=np.float64).T
    rates = sampling_rates(rows, weight, most)
    assert ((rates > 0) & (rates <= 1)).all()
    assert float(rows @ rates) == pytest.approx(min(most, rows.sum()))
    thinned = rates < 1
    assert np.ptp((weight / rates)[thinned]) <= 1e-9 * (weight / rates).max() if thinned.any() else True


def test_sample_that_keeps_what_is_rare_is_worth_nearly_the_whole_log() -> None:
    """10,000 rows of which 1% pay: beside all that pay, a tenth of the others is worth .01 x .99 + .99 x .01^2 over
    .01 x .99^2 + .99 x .01^2 x 10, about .917 of the log; a tenth of all rows is worth a tenth."""
    n, paid = 10_000, 100
    reward = np.r_[np.ones(paid), np.zeros(n - paid)]
    whole, some, thin = Tally(), Tally(), Tally()
    whole.add(_log(reward), np.full(n, 0.5))
    kept = np.r_[np.ones(paid, bool), np.arange(n - paid) % 10 == 0]
    some.add(_log(reward[kept], np.where(reward[kept] > 0, 1.0, 10.0)), np.full(kept.sum(), 0.5))
    tenth = np.arange(n) % 10 == 0
    thin.add(_log(reward[tenth], np.full(tenth.sum(), 10.0)), np.full(tenth.sum(), 0.5))
    assert whole.effective_rows == n
    assert some.effective_rows == pytest.approx(n * (0.01 * 0.99**2 + 0.99e-4) / (0.01 * 0.99**2 + 10 * 0.99e-4))
    assert thin.effective_rows == pytest.approx(n / 10)
    assert some.mean_reward == whole.mean_reward == 0.01
    assert msgspec.to_builtins(some.balance())["positive_rate"] == pytest.approx(0.01)
    assert some.balance().importance_ess == pytest.approx(whole.balance().importance_ess)


def test_sample_of_equal_rewards_is_worth_its_rows() -> None:
    tally = Tally()
    tally.add(_log(np.full(40, 0.3), np.full(40, 5.0)), np.ones(40))
    assert tally.effective_rows == pytest.approx(40)


def _log(reward: np.ndarray, weight: np.ndarray | None = None) -> Interactions:
    n = reward.size
    batch = Batch([{}] * n, [{}] * (2 * n), ["a", "b"] * n, np.arange(0, 2 * n + 1, 2))
    return Interactions(batch, np.arange(0, 2 * n, 2), np.full(n, 0.5), reward, np.full(2 * n, 0.5), weight)
