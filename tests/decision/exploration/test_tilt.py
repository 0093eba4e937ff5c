from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import multinomial

from decision.batch import Batch, one
from decision.draw import draw, seed_of
from decision.errors import FieldError
from decision.exploration.rule import Exploration
from decision.exploration.softmax import softmax
from decision.exploration.tilt import ranked, tilt
from decision.policy import OraclePolicy, RankingPolicy

SCORES = np.array([0.1, 0.4, 0.2, 0.7, 0.3])
OFFSETS = np.array([0, 3, 5])


def test_a_ranking_falls_as_the_power_of_the_place() -> None:
    assert ranked(OFFSETS, steepness=1.0).tolist() == pytest.approx([6 / 11, 3 / 11, 2 / 11, 2 / 3, 1 / 3])
    assert ranked(OFFSETS, steepness=0.0).tolist() == pytest.approx([1 / 3] * 3 + [1 / 2] * 2)
    assert ranked(OFFSETS, steepness=1e6).tolist() == [1.0, 0.0, 0.0, 1.0, 0.0]


def test_a_tilt_is_the_ranking_times_what_is_expected() -> None:
    ratio = np.exp(3.0 * (0.4 - 0.1)) / 2.0**1.5
    found = tilt(SCORES, OFFSETS, inverse_temperature=3.0, steepness=1.5)
    assert found[1] / found[0] == pytest.approx(ratio)


def test_without_a_ranking_it_is_softmax_and_without_scores_the_ranking() -> None:
    assert np.allclose(
        tilt(SCORES, OFFSETS, inverse_temperature=4.0, steepness=0.0),
        softmax(SCORES, OFFSETS, inverse_temperature=4.0),
        rtol=0,
        atol=1e-15,
    )
    by_rank = tilt(SCORES, OFFSETS, inverse_temperature=0.0, steepness=2.0)
    assert np.allclose(by_rank, ranked(OFFSETS, steepness=2.0), rtol=0, atol=1e-15)


def test_it_earns_the_most_less_its_divergence_from_the_ranking() -> None:
    offsets, q = np.array([0, 3]), ranked(np.array([0, 3]), steepness=1.0)
    p = tilt(SCORES[:3], offsets, inverse_temperature=2.0, steepness=1.0)

    def objective(pmf: np.ndarray) -> float:
        return float(pmf @ SCORES[:3] - (pmf * np.log(pmf / q)).sum() / 2.0)

    rng = np.random.default_rng(0)
    assert all(objective(p) > objective(other) for other in rng.dirichlet(np.ones(3), 200))


def test_it_is_the_limit_of_one_of_many_proposals_drawn_by_the_ranking_and_taken_by_softmax() -> None:
    offsets, scores = np.array([0, 3]), SCORES[:3]
    q = ranked(offsets, steepness=1.0)
    p = tilt(scores, offsets, inverse_temperature=4.0, steepness=1.0)
    apart: list[float] = []
    for proposals in (1, 10, 100):
        counts = [(i, j, proposals - i - j) for i in range(proposals + 1) for j in range(proposals + 1 - i)]
        drawn, weights = multinomial.pmf(counts, proposals, q), np.array(counts) * np.exp(4.0 * scores)
        apart.append(float(np.abs(drawn @ (weights / weights.sum(axis=1, keepdims=True)) - p).max()))
    assert apart[0] == pytest.approx(np.abs(q - p).max())  # one proposal is the ranking
    assert apart[0] / apart[1] > 5
    assert apart[1] / apart[2] == pytest.approx(10, rel=0.1)  # one over their number


def test_scores_and_steepness_of_any_size_give_a_distribution() -> None:
    wild = np.array([1e308, -1e308, 0.0])
    for given, eta in ((1e300, 1e300), (0.0, 1e300), (1e300, 0.0)):
        found = tilt(wild, np.array([0, 3]), inverse_temperature=given, steepness=eta)
        assert found.sum() == pytest.approx(1.0)
        assert (found >= 0.0).all()


@pytest.mark.parametrize("number", [-1.0, np.inf, np.nan])
def test_numbers_out_of_range_are_refused_by_name(number: float) -> None:
    with pytest.raises(FieldError, match="steepness"):
        ranked(OFFSETS, steepness=number)
    with pytest.raises(FieldError, match="inverse_temperature"):
        tilt(SCORES, OFFSETS, inverse_temperature=number, steepness=1.0)


class _Prefers:
    """An oracle that expects .5 of the action named b."""

    def fit(self, interactions: object) -> None: ...

    def predict(self, batch: Batch) -> np.ndarray:
        return np.array([0.5 * (name == "b") for name in batch.action_ids])

    def save(self) -> dict[str, bytes]:
        return {}


def test_a_served_propensity_is_that_of_the_same_order_in_a_replay() -> None:
    policy = OraclePolicy(_Prefers(), Exploration(kind="tilt", steepness=1.0, inverse_temperature=2.0, floor=0.1))
    ids = ["c", "a", "b"]
    served = policy.prepare([{}] * 3, ids)([{}])[0]
    replayed = policy.pmf(one({}, [{}] * 3, ids))
    assert served == replayed.tolist()
    tilted = tilt(np.array([0, 0, 0.5]), np.array([0, 3]), inverse_temperature=2.0, steepness=1.0)
    assert served == pytest.approx((0.9 * tilted + 0.1 / 3).tolist())
    drawn = np.bincount([draw(served, seed_of("tilt", str(number))) for number in range(4_000)], minlength=3) / 4_000
    assert np.abs(drawn - replayed).max() < 0.04  # five standard errors


def test_the_baseline_ranking_answers_for_prepared_actions_as_for_a_batch() -> None:
    policy = RankingPolicy(2.0)
    batch = Batch([{}, {}], [{}] * 5, list("abcde"), OFFSETS)
    prepared = policy.prepare([{}] * 3, list("abc"))([{}, {}])
    assert prepared[0] == prepared[1] == policy.pmf(batch)[:3].tolist()
