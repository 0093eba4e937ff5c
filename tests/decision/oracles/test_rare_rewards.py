"""A fit to rare rewards: the few rows that are asked first know them, and a bad guess does not end it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from decision.batch import Batch, Interactions
from decision.oracles import likelihood
from decision.oracles.action_ids import with_ids
from decision.oracles.drawn import Drawn, DrawnRows
from decision.oracles.logistic import LogisticOracle
from decision.parts import Held


def clicks(n: int, rate: float, seed: int, k: int = 6) -> Interactions:
    """Return a log of `n` uniform draws of `k` named actions, of which about the share `rate` was clicked."""
    rng = np.random.default_rng(seed)
    numbers = rng.random((n, 5)).round(3)
    contexts = [dict(zip("abcde", row, strict=True)) for row in numbers.tolist()]
    actions = [{"price": i / k, f"kind={i % 4}": 1.0} for i in range(k)] * n
    chosen = rng.integers(0, k, n)
    reward = (rng.random(n) < rate * (0.5 + 2.0 * numbers[:, 0] * chosen / k)).astype(float)
    batch = Batch(contexts, actions, [f"a{i}" for i in range(k)] * n, np.arange(n + 1) * k)
    return Interactions(with_ids(batch), np.arange(n) * k + chosen, np.full(n, 1.0 / k), reward, np.ones(n))


@pytest.mark.parametrize(("rate", "seed"), [(0.004, 1), (0.02, 2), (0.996, 3)])
def test_a_fit_to_rare_rewards_goes_over_the_log_a_few_dozen_times(rate: float, seed: int) -> None:
    log, passes = clicks(12_000, min(rate, 1.0 - rate), seed), list[int]()
    if rate > 0.5:
        log = replace(log, reward=1.0 - log.reward)
    oracle = LogisticOracle()
    oracle.fit_chunks([log], watch=passes.append)
    assert max(passes) < 60
    assert abs(oracle.predict(log.batch)[log.chosen].mean() - log.reward.mean()) < 1e-3


@pytest.mark.parametrize("rate", [0.001, 0.3])
def test_few_rows_weigh_what_all_weigh_on_either_side_of_the_mean(rate: float) -> None:
    log = clicks(8_000, rate, 4)
    weight = np.random.default_rng(5).uniform(0.5, 2.0, len(log))
    rows = DrawnRows([replace(log, weight=weight)], Held())
    some = rows.few(400)
    assert some.weight.sum() == pytest.approx(weight.sum())
    assert some.reward.size <= 500
    if rate < 0.01:
        paid = log.reward > 0
        assert (some.reward > 0).sum() == paid.sum()
        assert some.weight[some.reward > 0].sum() == pytest.approx(weight[paid].sum())


def test_a_guess_from_rows_unlike_all_others_costs_passes_and_not_the_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    log, guided, misled, passes = clicks(12_000, 0.02, 6), LogisticOracle(), LogisticOracle(), list[int]()
    guided.fit(log)
    never = np.flatnonzero(log.reward == 0)

    def too_heavy(rows: DrawnRows, count: int) -> Drawn:
        some = rows.take(never[:count])
        return some._replace(weight=some.weight * 1e9)

    monkeypatch.setattr(DrawnRows, "few", too_heavy)
    monkeypatch.setattr(likelihood, "_STEPS", 500)  # it needs 2,000
    misled.fit_chunks([log], watch=passes.append)
    assert 1 in passes[1:], "the guess was good enough"
    assert np.allclose(guided.predict(log.batch), misled.predict(log.batch), atol=1e-4)
