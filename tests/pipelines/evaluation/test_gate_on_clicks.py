"""The short form of `tests.soak.gate`."""

from __future__ import annotations

import numpy as np
import pytest

from decision.batch import Batch, Interactions
from decision.ope.estimators.lift import Lift, lift_of
from tests.soak.gate import run, summed


@pytest.mark.statistical
def test_of_clicks_the_gate_takes_a_gain_of_a_third_and_not_what_is_worse_than_its_margin() -> None:
    """With error .05 at most per run, two bad ones of eight have probability .06; with this seed there is none."""
    rng = np.random.default_rng(3)
    assert sum(run(rng, 0.01, -0.02) is not None for _ in range(8)) <= 1
    assert all(run(rng, 0.01, 0.3) is not None for _ in range(4))


def test_sums_of_counted_rows_are_those_of_the_rows() -> None:
    drawn, new, old = np.array([0.5, 0.3, 0.2]), np.array([0.1, 0.1, 0.8]), np.array([0.6, 0.2, 0.2])

    def log(n: int, reward: float) -> Interactions:
        batch = Batch([{}] * n, [{}] * (3 * n), [""] * (3 * n), np.arange(n + 1) * 3)
        return Interactions(batch, np.arange(n) * 3 + 2, np.full(n, 0.2), np.full(n, reward), np.tile(drawn, n))

    def lift(n: int, reward: float) -> Lift:
        return lift_of(log(n, reward), np.tile(new, n), np.tile(old, n), np.full(3 * n, 0.1))

    counted: Lift = summed([lift(1, 0.0), lift(1, 1.0)])(np.array([20, 30]))
    one, other = counted.estimate(level=0.9), (lift(20, 0.0) + lift(30, 1.0)).estimate(level=0.9)
    assert (one.value, one.low, one.high, one.ess) == pytest.approx((other.value, other.low, other.high, other.ess))
