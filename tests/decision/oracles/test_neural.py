"""What a fit of the network holds in memory."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from decision.batch import Batch, Interactions
from decision.columns import FeatureRows
from decision.oracles.neural import NeuralOracle, NeuralSettings

pytest.importorskip("torch")


def test_a_fit_writes_out_the_rows_of_a_step_and_never_all_of_them() -> None:
    """400 towns and eight actions make 3,608 inputs: 20,000 rows of them, written out, take half a gigabyte."""
    rng, n, towns, k = np.random.default_rng(1), 20_000, 400, 8
    contexts = FeatureRows.of([{f"town={i}": 1.0} for i in range(towns)]).take(rng.integers(0, towns, n))
    actions = FeatureRows.of([{f"kind={i}": 1.0} for i in range(k)]).take(np.tile(np.arange(k), n))
    batch = Batch(contexts, actions, ["a"] * (n * k), np.arange(n + 1) * k)
    chosen, reward = np.arange(n) * k + rng.integers(0, k, n), (rng.random(n) < 0.3).astype(float)
    log = Interactions(batch, chosen, np.full(n, 1 / k), reward, np.full(n * k, 1 / k))
    oracle = NeuralOracle(NeuralSettings(steps=2))
    tracemalloc.start()
    try:
        oracle.fit(log)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < n * (towns + k + towns * k) * 8 / 4
