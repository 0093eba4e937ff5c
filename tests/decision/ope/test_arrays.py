from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from decision.errors import FieldError
from decision.ope.arrays import evaluate
from tests.contracts.estimator import world_of

WORLD = world_of(np.random.default_rng(0), 2_000)
GIVEN: dict[str, Any] = {
    "action": WORLD.log.chosen - WORLD.log.batch.offsets[:-1],
    "propensity": WORLD.log.propensity,
    "reward": WORLD.log.reward,
    "policy": WORLD.pmf.reshape(-1, 3),
    "logging": WORLD.log.pmf.reshape(-1, 3),
}


def test_four_arrays_are_enough() -> None:
    bare = {name: GIVEN[name] for name in ("action", "propensity", "reward", "policy")}
    found = evaluate(**bare)
    assert found.refused == []
    for name in ("ips", "snips", "dr", "sndr", "cressie_read"):
        estimate = found.estimates[name]
        assert estimate is not None
        assert estimate.low < WORLD.value < estimate.high
    assert "cab" not in found.estimates
    assert "cab" in evaluate(**GIVEN).estimates


def test_flat_arrays_with_offsets_are_the_same() -> None:
    flat = {**GIVEN, "policy": WORLD.pmf, "logging": WORLD.log.pmf, "offsets": WORLD.log.batch.offsets}
    assert evaluate(**flat) == evaluate(**GIVEN)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"policy": WORLD.pmf}, "policy"),
        ({"action": np.full(2_000, 3)}, "action"),
        ({"action": np.zeros(5, dtype=int)}, "action"),
        ({"logging": WORLD.log.pmf[:-3]}, "logging"),
        ({"expected": np.ones((2_000, 2))}, "expected"),
        ({"propensity": np.zeros(2_000)}, "propensity"),
        ({"high": 0.5}, "reward"),
    ],
)
def test_what_does_not_fit_is_named(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(FieldError) as caught:
        evaluate(**{**GIVEN, **changes})
    assert caught.value.field == field
