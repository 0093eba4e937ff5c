from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decision.batch import Batch, Floats, Interactions
from decision.errors import FieldError
from decision.exploration.epsilon_greedy import epsilon_greedy
from decision.exploration.mix import with_floor
from decision.exploration.rule import Exploration
from decision.exploration.squarecb import squarecb
from decision.exploration.uniform import uniform
from decision.policy import FirstPolicy, OraclePolicy, UniformPolicy, baseline_policy
from decision.ragged import group_sum
from tests.strategies import ragged_scores


class Fixed:
    """An oracle that knows its scores by heart."""

    def __init__(self, scores: Floats) -> None:
        self.values = scores

    def fit(self, interactions: Interactions) -> None:
        raise NotImplementedError

    def predict(self, batch: Batch) -> Floats:
        return self.values

    def save(self) -> dict[str, bytes]:
        raise NotImplementedError


def batch_of(offsets) -> Batch:
    n, m = offsets.size - 1, int(offsets[-1])
    return Batch([{}] * n, [{}] * m, [str(j) for j in range(m)], offsets)


@given(case=ragged_scores())
def test_pmf_is_the_rule_under_the_floor(case) -> None:
    scores, offsets = case
    rules = {
        "squarecb": squarecb(scores, offsets, gamma=30.0),
        "epsilon_greedy": epsilon_greedy(scores, offsets, epsilon=0.3),
        "uniform": uniform(offsets),
    }
    for kind, expected in rules.items():
        policy = OraclePolicy(Fixed(scores), Exploration(kind=kind, gamma=30.0, epsilon=0.3, floor=0.2))
        assert np.array_equal(policy.pmf(batch_of(offsets)), with_floor(expected, offsets, 0.2))


@given(case=ragged_scores(), gamma=st.floats(0, 1e9), floor=st.floats(0, 1))
def test_pmf_is_strict_at_every_gamma_and_floor(case, gamma: float, floor: float) -> None:
    scores, offsets = case
    pmf = OraclePolicy(Fixed(scores), Exploration(gamma=gamma, floor=floor)).pmf(batch_of(offsets))
    assert np.abs(group_sum(pmf, offsets) - 1.0).max() <= 1e-12
    assert (pmf >= floor * uniform(offsets) * (1 - 1e-12)).all()
    assert pmf.max() <= 1 + 1e-12


def test_pmf_of_a_thousand_actions_sums_to_one() -> None:
    scores, offsets = np.random.default_rng(0).random(1_000), np.array([0, 1_000])
    pmf = OraclePolicy(Fixed(scores), Exploration(floor=0.0)).pmf(batch_of(offsets))
    assert abs(float(pmf.sum()) - 1.0) <= 1e-12
    assert pmf.min() > 0


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("kind", ["squarecb", "epsilon_greedy", "uniform"])
def test_score_that_is_no_number_is_refused(wrong: float, kind) -> None:
    policy = OraclePolicy(Fixed(np.array([0.1, wrong])), Exploration(kind=kind))
    with pytest.raises(FieldError) as caught:
        policy.pmf(batch_of(np.array([0, 2])))
    assert caught.value.field == "scores"


def test_rule_that_gave_no_distribution_is_refused() -> None:
    """A gap beyond the largest double times a gamma of 0 is no number."""
    policy = OraclePolicy(Fixed(np.array([-1.5e308, 1.5e308])), Exploration(gamma=0.0))
    with pytest.raises(FieldError) as caught:
        policy.pmf(batch_of(np.array([0, 2])))
    assert caught.value.field == "pmf"


def test_no_decisions_are_no_error() -> None:
    empty = batch_of(np.array([0]))
    for policy in (UniformPolicy(), FirstPolicy(), OraclePolicy(Fixed(np.zeros(0)), Exploration())):
        assert policy.pmf(empty).shape == (0,)


def test_references_are_uniform_and_the_first_offered() -> None:
    batch = batch_of(np.array([0, 2, 3, 7]))
    assert baseline_policy("uniform").pmf(batch).tolist() == [0.5, 0.5, 1.0, 0.25, 0.25, 0.25, 0.25]
    assert baseline_policy("first").pmf(batch).tolist() == [1.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("field", "value"),
    [("gamma", -1.0), ("gamma", math.inf), ("gamma", math.nan), ("epsilon", 1.1), ("epsilon", -0.1), ("floor", 2.0),
     ("floor", math.nan)],
)  # fmt: skip
def test_number_outside_its_range_is_named(field: str, value: float) -> None:
    with pytest.raises(FieldError) as caught:
        Exploration(**{field: value})
    assert caught.value.field == field


def test_number_outside_its_range_does_not_come_in_by_a_file_either() -> None:
    with pytest.raises(msgspec.ValidationError, match="floor"):
        msgspec.json.decode(b'{"floor": 1.5}', type=Exploration)
