from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decision.guard.coin import candidate_has, trajectory_weights
from decision.guard.snapshot import segment_of

LOGS = st.floats(-500.0, 0.0)


@pytest.mark.statistical
def test_the_coin_falls_for_the_candidate_at_its_weight() -> None:
    """20,000 units: off by more than 5 standard errors with probability 6e-7."""
    fell = np.mean([candidate_has("shop", f"s{n}", 0.3) for n in range(20_000)])
    assert abs(fell - 0.3) < 5 * math.sqrt(0.3 * 0.7 / 20_000)


def test_a_unit_that_the_candidate_has_it_keeps_as_the_weight_rises() -> None:
    had = [candidate_has("shop", f"s{n}", 0.2) for n in range(500)]
    has = [candidate_has("shop", f"s{n}", 0.6) for n in range(500)]
    assert sum(has) > sum(had) > 0
    assert all(later for earlier, later in zip(had, has, strict=True) if earlier)


@given(baseline=LOGS, candidate=LOGS, rho=st.floats(0.0, 0.99))
def test_weights_of_a_trajectory_mix_to_one_however_improbable_it_was(
    baseline: float, candidate: float, rho: float
) -> None:
    w_c, w_b = trajectory_weights(np.array([baseline]), np.array([candidate]), np.array([rho]))
    assert rho * w_c[0] + (1 - rho) * w_b[0] == pytest.approx(1.0)
    if rho > 0 and abs(baseline - candidate) < 100:
        assert w_c[0] / w_b[0] == pytest.approx(math.exp(candidate - baseline))


def test_weights_of_a_trajectory_by_hand() -> None:
    logs = np.log([[0.5 * 0.5, 0.5 * 0.2], [0.8 * 0.8, 0.2 * 0.1]])
    w_c, w_b = trajectory_weights(logs[0], logs[1], np.array([0.25, 0.25]))
    drawn = [0.75 * 0.25 + 0.25 * 0.64, 0.75 * 0.1 + 0.25 * 0.02]
    assert w_c == pytest.approx([0.64 / drawn[0], 0.02 / drawn[1]])
    assert w_b == pytest.approx([0.25 / drawn[0], 0.1 / drawn[1]])


@pytest.mark.parametrize(
    ("context", "found"),
    [
        ({"user": {"country": "de"}}, "de"),
        ({"user": {"country": "xx"}}, ""),
        ({"user": {"country": 7}}, "7"),
        ({"user": {"country": True}}, "true"),
        ({"user": {"country": 7.5}}, ""),
        ({"user": {"country": ["de"]}}, ""),
        ({"user": "de"}, ""),
        ({}, ""),
    ],
)
def test_a_segment_is_a_listed_value_and_everything_else_is_the_rest(context: dict[str, object], found: str) -> None:
    assert segment_of(context, "user.country", {"de", "7", "true"}) == found
    assert segment_of(context, "", {"de"}) == ""
