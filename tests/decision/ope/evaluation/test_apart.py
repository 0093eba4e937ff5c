"""Estimates that cannot be right together with the one to read first are said."""

from __future__ import annotations

import numpy as np
import pytest

from decision.ope.arrays import evaluate
from decision.ope.evaluation.results import Results

LOGGING, POLICY, MEANS = np.array([0.5, 0.3, 0.2]), np.array([0.1, 0.3, 0.6]), np.array([0.3, 0.5, 0.4])
N = 4_000


def found(model: float) -> Results:
    """Return what a log says whose reward model is `model` times the true means."""
    rng = np.random.default_rng(2)
    action = rng.choice(3, p=LOGGING, size=N)
    return evaluate(
        action=action,
        propensity=LOGGING[action],
        reward=(rng.random(N) < MEANS[action]).astype(float),
        policy=np.tile(POLICY, (N, 1)),
        logging=np.tile(LOGGING, (N, 1)),
        expected=np.tile(MEANS * model, (N, 1)),
    )


@pytest.mark.parametrize("model", [0.6, 1.5])
def test_a_direct_method_that_misses_is_marked_and_those_that_hold_are_not(model: float) -> None:
    result = found(model)
    direct = result.estimates["dm"]
    assert result.recommended == "dr"
    assert direct is not None
    assert "dm" in result.apart
    assert "further from dr than both intervals allow" in direct.reasons
    assert not {"ips", "snips", "sndr", "cressie_read", "dr"} & set(result.apart)


def test_a_right_reward_model_is_not_marked() -> None:
    assert not {"dm", "dros", "switch_dr"} & set(found(1.0).apart)
