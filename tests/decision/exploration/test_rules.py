from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decision.errors import FieldError
from decision.exploration.epsilon_greedy import epsilon_greedy
from decision.exploration.greedy import greedy
from decision.exploration.mix import check_pmf, mixture, with_floor
from decision.exploration.squarecb import squarecb
from decision.exploration.uniform import uniform
from tests.strategies import ragged_scores

RULES = {
    "greedy": greedy,
    "epsilon_greedy": lambda s, o: epsilon_greedy(s, o, epsilon=0.2),
    "squarecb": lambda s, o: squarecb(s, o, gamma=30.0),
    "uniform": lambda s, o: uniform(o),
}


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
@given(case=ragged_scores())
def test_rule_gives_distributions(rule, case) -> None:
    scores, offsets = case
    check_pmf(rule(scores, offsets), offsets)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
@given(case=ragged_scores())
def test_rule_never_prefers_a_lower_score(rule, case) -> None:
    scores, offsets = case
    pmf = rule(scores, offsets)
    for low, high in pairwise(offsets):
        order = np.argsort(scores[low:high], kind="stable")
        assert (np.diff(pmf[low:high][order]) >= -1e-12).all()


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
@given(case=ragged_scores(), seed=st.integers(0, 999))
def test_rule_does_not_depend_on_the_order_offered(rule, case, seed: int) -> None:
    scores, offsets = case
    rng = np.random.default_rng(seed)
    order = np.concatenate([low + rng.permutation(high - low) for low, high in pairwise(offsets)])
    assert np.allclose(rule(scores[order], offsets), rule(scores, offsets)[order], rtol=0, atol=1e-12)


@given(case=ragged_scores())
def test_squarecb_limits_are_uniform_and_greedy(case) -> None:
    scores, offsets = case
    scores = np.round(scores, 2)
    assert np.allclose(squarecb(scores, offsets, gamma=0.0), uniform(offsets), atol=1e-12)
    assert np.allclose(squarecb(scores, offsets, gamma=1e14), greedy(scores, offsets), atol=1e-9)


def test_squarecb_is_the_closed_form() -> None:
    pmf = squarecb(np.array([0.2, 0.7, 0.6]), np.array([0, 3]), gamma=10.0)
    assert pmf == pytest.approx([1 / 8, 1 - 1 / 8 - 1 / 4, 1 / 4])


def test_squarecb_beyond_the_largest_double_is_greedy() -> None:
    assert squarecb(np.array([-1.5e308, 1.5e308, 0.0]), np.array([0, 3]), gamma=1e300).tolist() == [0.0, 1.0, 0.0]


def test_squarecb_takes_a_gamma_per_decision() -> None:
    scores, offsets = np.array([0.0, 1.0, 0.0, 1.0]), np.array([0, 2, 4])
    assert squarecb(scores, offsets, gamma=np.array([0.0, 2.0])) == pytest.approx([0.5, 0.5, 0.25, 0.75])


@given(case=ragged_scores(), share=st.floats(0, 1))
def test_floor_keeps_its_share_for_every_action(case, share: float) -> None:
    scores, offsets = case
    pmf = with_floor(greedy(scores, offsets), offsets, share)
    check_pmf(pmf, offsets)
    assert (pmf >= share * uniform(offsets) - 1e-12).all()


@given(case=ragged_scores(), weight=st.floats(0, 1))
def test_mixture_is_a_distribution_between_its_parts(case, weight: float) -> None:
    scores, offsets = case
    a, b = greedy(scores, offsets), uniform(offsets)
    mixed = mixture(a, b, weight)
    check_pmf(mixed, offsets)
    assert (mixed <= np.maximum(a, b) + 1e-12).all()
    assert (mixed >= np.minimum(a, b) - 1e-12).all()


@pytest.mark.parametrize(
    "pmf", [[0.5, 0.6], [1.5, -0.5], [np.nan, 1.0], [np.inf, 0.0]], ids=["sum", "negative", "nan", "infinite"]
)
def test_validator_refuses_what_is_no_distribution(pmf: list[float]) -> None:
    with pytest.raises(FieldError, match="pmf"):
        check_pmf(np.array(pmf), np.array([0, 2]))


@pytest.mark.parametrize("gamma", [-1.0, float("nan"), float("inf")])
def test_squarecb_refuses_a_gamma_that_is_none(gamma: float) -> None:
    with pytest.raises(FieldError, match="gamma"):
        squarecb(np.zeros(2), np.array([0, 2]), gamma=gamma)


def test_epsilon_outside_the_unit_interval_is_refused() -> None:
    with pytest.raises(FieldError, match="epsilon"):
        epsilon_greedy(np.zeros(2), np.array([0, 2]), epsilon=1.1)
