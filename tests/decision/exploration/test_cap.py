from __future__ import annotations

from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from decision.batch import Batch
from decision.columns import FeatureRows
from decision.errors import FieldError
from decision.exploration.cap import capped, capped_few, is_supplied, without_supplied
from decision.exploration.mix import check_pmf
from decision.exploration.rule import Exploration
from decision.oracles.linear import LinearOracle
from decision.policy import CappedPolicy, OraclePolicy, blinded
from decision.ragged import group_sum, normalise
from tests.contracts import policy as contract
from tests.strategies import interactions_of, ragged_scores

ONE = np.array([0, 3])
SUPPLIED = ("c0", "s")
CAPS = st.floats(0.0, 1e6)
EXTREME = st.sampled_from([0.0, -0.0, 1e-320, 1e-9, -1e15, 1e15, 1e300, -1e300]) | st.floats(
    allow_nan=False, allow_infinity=False
)


@cache
def two_policies() -> tuple[OraclePolicy, OraclePolicy, Batch]:
    log = interactions_of(np.random.default_rng(3), 400)
    rule = Exploration(kind="squarecb", gamma=300.0, floor=0.02)
    parts = []
    for supplied in ((), SUPPLIED):
        oracle = LinearOracle()
        batch = blinded(log.batch, supplied)
        oracle.fit(type(log)(batch, log.chosen, log.propensity, log.reward, log.pmf))
        parts.append(OraclePolicy(oracle, rule))
    return *parts, log.batch.take(np.arange(20))


def policy_with_a_cap(cap: float = 2.0) -> tuple[CappedPolicy, Batch]:
    full, trusted, batch = two_policies()
    return CappedPolicy(full, trusted, supplied=SUPPLIED, cap=cap), batch


@given(case=ragged_scores(low=0.0, high=1.0), other=st.integers(0, 2**16), cap=CAPS)
@example(case=(np.array([1.0, 0.0, 0.0]), ONE), other=0, cap=1.0)
def test_no_probability_passes_the_bound_whatever_the_full_distribution_says(case, other: int, cap: float) -> None:
    weights, offsets = case
    full = normalise(weights + 1e-300, offsets)
    trusted = normalise(np.random.default_rng(other).random(weights.size) ** 9 + 1e-300, offsets)
    pmf = capped(full, trusted, offsets, cap=cap)
    check_pmf(pmf, offsets)
    assert (pmf <= (cap + 1.0) * trusted).all()


def test_closed_form_of_two_distributions() -> None:
    pmf = capped(np.array([0.9, 0.1, 0.0]), np.array([0.1, 0.3, 0.6]), ONE, cap=4.0)
    assert np.allclose(pmf, [0.4 + 0.05, 0.1 + 0.15, 0.3], rtol=0.0, atol=1e-15)


def test_distributions_that_agree_are_left_as_they_are() -> None:
    full = np.array([0.5, 0.3, 0.2])
    assert np.array_equal(capped(full, full, ONE, cap=1.0), full)


def test_a_cap_of_0_is_the_trusted_distribution_and_a_large_one_the_full_one() -> None:
    full, trusted = np.array([0.9, 0.1, 0.0]), np.array([0.2, 0.3, 0.5])
    assert np.allclose(capped(full, trusted, ONE, cap=0.0), trusted, rtol=0.0, atol=1e-15)
    assert np.allclose(capped(full, trusted, ONE, cap=1e6), full, rtol=0.0, atol=1e-15)


@given(case=ragged_scores(low=0.0, high=1.0), cap=st.floats(1.0, 100.0), share=st.floats(0.0, 1.0))
def test_the_floor_of_both_is_kept(case, cap: float, share: float) -> None:
    weights, offsets = case
    least = np.repeat(share / np.diff(offsets), np.diff(offsets))
    full = (1.0 - share) * normalise(weights + 1e-300, offsets) + least
    trusted = (1.0 - share) * normalise(weights[::-1] + 1e-300, offsets) + least
    assert (capped(full, trusted, offsets, cap=cap) >= least - 1e-12).all()


@given(case=ragged_scores(low=0.0, high=1.0), cap=CAPS)
def test_few_is_bit_for_bit_the_same(case, cap: float) -> None:
    weights, offsets = case
    full, trusted = normalise(weights + 1e-300, offsets), normalise(weights[::-1] + 0.01, offsets)
    whole = capped(full, trusted, offsets, cap=cap)
    for start, stop in pairwise(offsets.tolist()):
        assert capped_few(full[start:stop].tolist(), trusted[start:stop].tolist(), cap=cap) == list(whole[start:stop])


@pytest.mark.parametrize("cap", [-1.0, float("nan"), float("inf")])
def test_a_cap_that_is_none_is_refused(cap: float) -> None:
    with pytest.raises(FieldError, match="cap"):
        capped(np.array([1.0]), np.array([1.0]), np.array([0, 1]), cap=cap)


@pytest.mark.parametrize("name", ["age", "age=old", "age.group", "age[0]", "age#2", "a.b", "a.b.c=d"])
def test_all_forms_of_a_supplied_feature_are_supplied(name: str) -> None:
    assert is_supplied(name, ("age", "a.b"))


@pytest.mark.parametrize("name", ["ages", "feature.age", "a", "a=b", "a.bc", "", "b.age"])
def test_other_features_are_not(name: str) -> None:
    assert not is_supplied(name, ("age", "a.b"))


def test_columns_and_dictionaries_lose_the_same_features() -> None:
    rows = [{"age": 3.0, "x": 1.0}, {}, {"age=old": 1.0}, {"x": 1.0}, {"age": 3.0, "x": 1.0}]
    expected = [{"x": 1.0}, {}, {}, {"x": 1.0}, {"x": 1.0}]
    assert without_supplied(rows, ("age",)) == expected
    assert list(without_supplied(FeatureRows.of(rows), ("age",))) == expected


@settings(max_examples=30)
@given(values=st.lists(EXTREME, min_size=3, max_size=3), cap=st.floats(1.0, 50.0))
def test_no_word_of_a_caller_passes_the_bound_in_a_policy(values: list[float], cap: float) -> None:
    policy, batch = policy_with_a_cap(cap)
    said = dict(zip(("c0", "s", "s=new"), values, strict=True))
    contexts = [{**context, **said} for context in batch.contexts]
    pmf = policy.pmf(Batch(contexts, batch.actions, batch.action_ids, batch.offsets))
    assert (pmf <= (cap + 1.0) * policy.trusted_pmf(batch)).all()


def test_ten_thousand_contexts_up_to_1e300_keep_the_bound() -> None:
    policy, batch = policy_with_a_cap(4.0)
    rng = np.random.default_rng(5)
    rows = batch.take(rng.integers(len(batch), size=10_000))
    size = 10.0 ** rng.uniform(-300, 300, (10_000, 2)) * rng.choice([-1.0, 1.0], (10_000, 2))
    contexts = [{**c, "c0": a, "s": b} for c, (a, b) in zip(rows.contexts, size.tolist(), strict=True)]
    asked = Batch(contexts, rows.actions, rows.action_ids, rows.offsets)
    pmf, trusted = policy.pmf(asked), policy.trusted_pmf(rows)
    assert (pmf <= 5.0 * trusted).all()
    assert (policy.full.pmf(asked) > 5.0 * trusted).any()
    assert np.allclose(group_sum(pmf, rows.offsets), 1.0, rtol=0.0, atol=1e-9)


@pytest.mark.parametrize("check", contract.CHECKS)
def test_contract(check) -> None:
    check(*policy_with_a_cap())
