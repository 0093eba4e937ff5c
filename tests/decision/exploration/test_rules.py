from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decision.errors import FieldError
from decision.exploration.epsilon_greedy import epsilon_greedy
from decision.exploration.falcon import falcon_gamma
from decision.exploration.fastcb import fastcb
from decision.exploration.greedy import greedy
from decision.exploration.mix import check_pmf, mixture, with_floor
from decision.exploration.regcb import regcb
from decision.exploration.softmax import softmax
from decision.exploration.squarecb import squarecb
from decision.exploration.uniform import uniform
from decision.exploration.votes import votes
from tests.strategies import ragged_scores

RULES = {
    "greedy": greedy,
    "epsilon_greedy": lambda s, o: epsilon_greedy(s, o, epsilon=0.2),
    "squarecb": lambda s, o: squarecb(s, o, gamma=30.0),
    "uniform": lambda s, o: uniform(o),
    "falcon": lambda s, o: squarecb(s, o, gamma=falcon_gamma(o, rows=500.0, scale=1.0)),
    "fastcb": lambda s, o: fastcb(s, o, gamma=30.0, low=-5.0, high=5.0),
    "softmax": lambda s, o: softmax(s, o, inverse_temperature=3.0),
    "votes": lambda s, o: votes(np.stack([s, s + 1.0, np.round(s)]), o),
    "regcb": lambda s, o: regcb(s + 0.5, s - 0.5, o),
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


def test_fastcb_is_the_closed_form() -> None:
    """Losses .8, .3, .4: p = .3 / (.9 + 10 * .5) and .3 / (.9 + 10 * .1)."""
    pmf = fastcb(np.array([0.2, 0.7, 0.6]), np.array([0, 3]), gamma=10.0)
    first, last = 0.3 / 5.9, 0.3 / 1.9
    assert pmf == pytest.approx([first, 1.0 - first - last, last])


def test_fastcb_explores_less_than_squarecb_where_the_best_loss_is_small() -> None:
    scores, offsets = np.array([0.5, 0.98]), np.array([0, 2])
    assert fastcb(scores, offsets, gamma=10.0)[0] < 0.1 * squarecb(scores, offsets, gamma=10.0)[0]


def test_fastcb_without_loss_is_greedy() -> None:
    assert fastcb(np.array([1.0, 0.5, 1.0]), np.array([0, 3]), gamma=0.0).tolist() == [0.5, 0.0, 0.5]


@given(case=ragged_scores(low=0.0, high=0.9))
def test_fastcb_limits_are_uniform_and_greedy(case) -> None:
    scores, offsets = case
    scores = np.round(scores, 2)
    assert np.allclose(fastcb(scores, offsets, gamma=0.0), _uniform_where_not_tied(scores, offsets), atol=1e-12)
    assert np.allclose(fastcb(scores, offsets, gamma=1e14), greedy(scores, offsets), atol=1e-9)


def _uniform_where_not_tied(scores, offsets):
    return squarecb(scores, offsets, gamma=0.0)


def test_softmax_is_the_closed_form() -> None:
    pmf = softmax(np.array([0.0, np.log(3.0) / 2.0]), np.array([0, 2]), inverse_temperature=2.0)
    assert pmf == pytest.approx([0.25, 0.75])


@given(case=ragged_scores())
def test_softmax_limits_are_uniform_and_greedy(case) -> None:
    scores, offsets = case
    scores = np.round(scores, 2)
    assert np.allclose(softmax(scores, offsets, inverse_temperature=0.0), uniform(offsets), atol=1e-12)
    assert np.allclose(softmax(scores, offsets, inverse_temperature=1e9), greedy(scores, offsets), atol=1e-12)


def test_softmax_does_not_overflow() -> None:
    assert softmax(np.array([-1e308, 1e308]), np.array([0, 2]), inverse_temperature=1e10).tolist() == [0.0, 1.0]


def test_falcon_grows_with_the_root_of_actions_and_rows() -> None:
    gamma = falcon_gamma(np.array([0, 4, 20]), rows=100.0, scale=0.5)
    assert gamma.tolist() == [0.5 * 20.0, 0.5 * 40.0]
    assert falcon_gamma(np.array([0, 4]), rows=0.0, scale=0.5).tolist() == [0.0]


def test_regcb_keeps_what_some_model_prefers_and_sums_to_one_whatever_ties() -> None:
    high, low = np.array([0.5, 0.9, 0.7, 0.9]), np.array([0.1, 0.6, 0.6, 0.6])
    assert regcb(high, low, np.array([0, 4])) == pytest.approx([0.0, 1 / 3, 1 / 3, 1 / 3])
    assert regcb(np.ones(10), np.zeros(10), np.array([0, 10])) == pytest.approx(np.full(10, 0.1))


def test_votes_are_the_share_of_members_with_ties_shared() -> None:
    members = np.array([[0.1, 0.9, 0.2], [0.9, 0.1, 0.2], [0.5, 0.5, 0.1], [0.0, 1.0, 0.0]])
    assert votes(members, np.array([0, 3])).tolist() == [0.375, 0.625, 0.0]


def test_votes_of_gaussian_draws_approach_thompson_sampling() -> None:
    """P(N(.1, 1) > N(0, 1)) = Phi(.1 / sqrt 2); 40,000 draws err by 5 standard errors with probability 6e-7."""
    rng = np.random.default_rng(0)
    members = rng.normal(size=(40_000, 2)) + np.array([0.1, 0.0])
    expected = 0.5281860
    assert votes(members, np.array([0, 2]))[0] == pytest.approx(expected, abs=5 * 0.5 / 200)


def test_negative_gaps_that_spoil_other_implementations_are_distributions_here() -> None:
    """VW 9.11.9 returns negative probabilities for SquareCB with elimination, and RegCB's ties sum to K."""
    rng = np.random.default_rng(1)
    offsets = np.arange(0, 1_001, 10)
    for scores in (-rng.random(1_000), np.zeros(1_000), rng.normal(size=1_000) * 1e6):
        for rule in RULES.values():
            check_pmf(rule(scores, offsets), offsets)


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda s, o: softmax(s, o, inverse_temperature=-1.0), "inverse_temperature"),
        (lambda s, o: fastcb(s, o, gamma=float("nan")), "gamma"),
        (lambda s, o: fastcb(s, o, gamma=1.0, low=1.0, high=1.0), "high"),
        (lambda s, o: falcon_gamma(o, rows=-1.0, scale=1.0), "rows"),
        (lambda s, o: falcon_gamma(o, rows=1.0, scale=float("inf")), "falcon_scale"),
        (lambda s, o: regcb(s, s + 1.0, o), "low"),
        (lambda s, o: votes(np.zeros((0, 2)), o), "members"),
    ],
)
def test_number_outside_its_range_is_named(call, field: str) -> None:
    with pytest.raises(FieldError) as caught:
        call(np.array([0.1, 0.2]), np.array([0, 2]))
    assert caught.value.field == field
