from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import msgspec
import numpy as np
import pytest
from scipy import optimize

from decision.batch import Batch, Interactions
from decision.errors import FieldError
from decision.oracles.logistic import MODEL_FILE, NUMBERS_FILE, LogisticOracle, LogisticSettings
from decision.oracles.products import ColumnSet
from pipelines.scratch import scratch
from tests.strategies import interactions_of


def small(n: int = 250, seed: int = 0) -> tuple[Interactions, np.ndarray]:
    """Return a log with one context number, an action of two flags, and its design matrix by hand."""
    rng = np.random.default_rng(seed)
    x = rng.random(n)
    flags = rng.integers(0, 2, (n, 2))
    contexts = [{"x": float(v)} for v in x]
    actions = [{name: 1.0 for name, on in zip(("a", "b"), row, strict=True) if on} | {"c": 1.0} for row in flags]
    p = 1.0 / (1.0 + np.exp(-(0.5 - x + flags @ (1.0, -2.0) + 1.5 * x * flags[:, 0] + 0.7 * flags.prod(1))))
    reward = (rng.random(n) < p).astype(float)
    log = Interactions(
        Batch(contexts, actions, ["only"] * n, np.arange(n + 1)), np.arange(n), np.ones(n), reward, np.ones(n)
    )
    a, b, c = flags[:, 0], flags[:, 1], np.ones(n)
    x = x / np.sqrt(np.mean(x**2))  # as the oracle scales it
    design = np.column_stack([np.ones(n), x, c, a, b, x * c, x * a, x * b, a * c, b * c, a * b])
    return log, design


def test_predictions_are_the_penalised_maximum_likelihood() -> None:
    """Checked against a general optimiser on the columns written out by hand."""
    log, design = small()
    oracle = LogisticOracle(LogisticSettings(ridge=0.5))
    oracle.fit(log)
    penalty = np.full(design.shape[1], 0.5)
    penalty[0] *= 1e-3

    def loss(beta: np.ndarray) -> float:
        logit = design @ beta
        return float(np.sum(np.logaddexp(0.0, logit) - log.reward * logit) + 0.5 * penalty @ beta**2)

    best = optimize.minimize(loss, np.zeros(design.shape[1]), method="BFGS", options={"gtol": 1e-6}).x
    assert np.allclose(oracle.predict(log.batch), 1.0 / (1.0 + np.exp(-design @ best)), atol=2e-4)


def test_weight_of_two_is_the_row_twice_and_of_zero_is_no_row() -> None:
    log, _ = small()
    rows = np.arange(len(log))
    weight = np.where(rows % 3 == 0, 2.0, np.where(rows % 3 == 1, 1.0, 0.0))
    repeated = np.concatenate([rows[weight > 0], rows[weight == 2.0]])
    weighted, twice = LogisticOracle(), LogisticOracle()
    weighted.fit(Interactions(log.batch, log.chosen, log.propensity, log.reward, log.pmf, weight))
    twice.fit(log.take(repeated))
    assert np.allclose(weighted.predict(log.batch), twice.predict(log.batch), atol=1e-4)


def test_many_rows_end_where_newton_ends_nearer_than_the_tolerance_asks() -> None:
    """More than a part: a few rows are asked first where the optimum lies, and all decide."""
    log, design = small(70_000)
    oracle = LogisticOracle()
    oracle.fit(log)
    penalty = np.full(design.shape[1], LogisticSettings().ridge)
    penalty[0] *= 1e-3
    beta = np.zeros(design.shape[1])
    for _ in range(12):
        p = 1.0 / (1.0 + np.exp(-design @ beta))
        slope = design.T @ (p - log.reward) + penalty * beta
        beta -= np.linalg.solve((design.T * (p * (1.0 - p))) @ design + np.diag(penalty), slope)
    assert np.allclose(oracle.predict(log.batch), 1.0 / (1.0 + np.exp(-design @ beta)), atol=2e-6)


def test_what_a_few_rows_have_not_seen_is_learned_from_all() -> None:
    """A feature of 30 rows in 70,000 that stand together, and a weight of 0 wherever it is off."""
    rng = np.random.default_rng(5)
    log, _ = small(70_000)
    rare = np.arange(len(log)) // 30 == 1_234
    contexts = [x | {"rare": 1.0} if on else x for x, on in zip(log.batch.contexts, rare, strict=True)]
    reward = np.where(rare, rng.random(len(log)) < 0.95, log.reward).astype(float)
    batch = Batch(contexts, log.batch.actions, log.batch.action_ids, log.batch.offsets)
    oracle = LogisticOracle()
    oracle.fit(Interactions(batch, log.chosen, log.propensity, reward, log.pmf))
    assert oracle.predict(batch)[rare].mean() == pytest.approx(reward[rare].mean(), abs=0.05)


def cut(log: Interactions, size: int) -> Iterator[Interactions]:
    for start in range(0, len(log), size):
        yield log.take(np.arange(start, min(start + size, len(log))))


@pytest.mark.parametrize(("rows", "size", "held_bytes"), [(900, 128, 0), (900, 1, 1 << 20), (70_000, 30_000, 0)])
def test_chunks_of_a_log_are_the_log_bit_for_bit_in_memory_or_in_a_file(rows: int, size: int, held_bytes: int) -> None:
    log, _ = small(rows)
    weight = np.random.default_rng(1).choice([0.0, 0.5, 1.0], rows)
    log = Interactions(log.batch, log.chosen, log.propensity, log.reward, log.pmf, weight)
    whole, chunked = LogisticOracle(), LogisticOracle()
    whole.fit(log)
    with scratch(held_bytes) as place:
        chunked.fit_chunks(cut(log, size), place=place)
    assert chunked.save() == whole.save()


THREADS = """
import hashlib
import numpy as np
from decision.batch import Batch, Interactions
from decision.columns import FeatureRows
from decision.oracles.logistic import LogisticOracle

n, c, k = 70_000, 12, 10
rng = np.random.default_rng(0)
names = [f"x{i}" for i in range(c)]
contexts = FeatureRows(names, np.tile(np.arange(c, dtype=np.int32), n), rng.normal(size=n * c),
    np.arange(0, n * c + 1, c), np.arange(n))
actions = FeatureRows.of([{f"a{i}": 1.0} for i in range(k)]).take(rng.integers(0, k, n))
batch = Batch(contexts, actions, ["a"] * n, np.arange(n + 1))
oracle = LogisticOracle()
oracle.fit(Interactions(batch, np.arange(n), np.ones(n), (rng.random(n) < 0.3).astype(float), np.ones(n)))
for name, data in sorted(oracle.save().items()):
    print(name, hashlib.sha256(data).hexdigest())
"""


def test_number_of_threads_does_not_change_a_bit() -> None:
    found = {
        subprocess.run(
            [sys.executable, "-c", THREADS],
            env={**os.environ, "OPENBLAS_NUM_THREADS": threads, "OMP_NUM_THREADS": threads},
            check=True,
            capture_output=True,
        ).stdout
        for threads in ("1", "2")
    }
    assert len(found) == 1


def test_order_of_rows_does_not_matter() -> None:
    log, _ = small()
    one, other = LogisticOracle(), LogisticOracle()
    one.fit(log)
    other.fit(log.take(np.random.default_rng(1).permutation(len(log))))
    assert np.allclose(one.predict(log.batch), other.predict(log.batch), atol=1e-4)


def test_features_that_appear_later_get_weights_and_old_ones_keep_theirs() -> None:
    rng = np.random.default_rng(2)
    log, _ = small(400)
    oracle = LogisticOracle()
    oracle.fit(log)
    before = oracle.predict(log.batch)
    n = 300
    contexts = [{"x": float(v), "new": 1.0} for v in rng.random(n)]
    actions = [{"c": 1.0, "launched": 1.0}] * n
    reward = (rng.random(n) < 0.9).astype(float)
    batch = Batch(contexts, actions, ["launched"] * n, np.arange(n + 1))
    oracle.fit(Interactions(batch, np.arange(n), np.ones(n), reward, np.ones(n)))
    assert oracle.predict(batch).mean() == pytest.approx(reward.mean(), abs=0.05)
    assert np.abs(oracle.predict(log.batch) - before).max() < 0.05


def test_fractional_rewards_in_a_range_of_their_own_are_learned() -> None:
    log, _ = small(400)
    shifted = Interactions(log.batch, log.chosen, log.propensity, 10.0 * log.reward - 5.0, log.pmf)
    unit, wide = LogisticOracle(), LogisticOracle(LogisticSettings(low=-5.0, high=5.0))
    unit.fit(log)
    wide.fit(shifted)
    assert np.allclose(10.0 * unit.predict(log.batch) - 5.0, wide.predict(log.batch), atol=1e-6)


def test_members_scatter_around_the_prediction_and_narrow_with_data() -> None:
    small_log, _ = small(100)
    large_log, _ = small(4_000)
    widths = []
    for log in (small_log, large_log):
        oracle = LogisticOracle(LogisticSettings(samples=200))
        oracle.fit(log)
        members = oracle.members(small_log.batch)
        assert members.shape == (200, len(small_log))
        assert np.array_equal(members, oracle.members(small_log.batch))
        widths.append(members.std(axis=0).mean())
    assert widths[1] < 0.4 * widths[0]


def test_large_numbers_do_not_spoil_the_fit() -> None:
    """A year and an amount in cents beside a flag: the value of the flag is found all the same."""
    rng = np.random.default_rng(3)
    n = 2_000
    good = rng.integers(0, 2, n)
    contexts = [
        {"year": float(2_020 + rng.integers(6)), "cents": float(rng.integers(100_000)), "good": float(g)} for g in good
    ]
    reward = (rng.random(n) < np.where(good, 0.8, 0.2)).astype(float)
    batch = Batch(contexts, [{"a": 1.0}] * n, ["a"] * n, np.arange(n + 1))
    oracle = LogisticOracle()
    oracle.fit(Interactions(batch, np.arange(n), np.ones(n), reward, np.ones(n)))
    out = oracle.predict(batch)
    assert out[good == 1].mean() == pytest.approx(0.8, abs=0.04)
    assert out[good == 0].mean() == pytest.approx(0.2, abs=0.04)


def test_columns_shrink_large_numbers_and_blow_small_ones_up_twentyfold_at_most() -> None:
    rows = [{"pixel": 0.01 * (i % 3), "year": 2_020.0 + i % 5, "cents": 100.0 * i, "flag": 1.0} for i in range(100)]
    columns = ColumnSet().extended(rows)
    found = dict(zip(columns.names, zip(columns.shift, columns.scale, strict=True), strict=True))
    assert found["pixel"] == (0.0, 0.05)
    assert found["flag"] == (0.0, 1.0)
    assert found["year"] == pytest.approx((2_022.0, 2.0**0.5))
    assert found["cents"][1] > 2_000
    assert ColumnSet().extended(rows[:1]).extended(rows).names == columns.names


@pytest.mark.parametrize(
    ("settings", "field"),
    [({"ridge": 0.0}, "ridge"), ({"low": 1.0, "high": 1.0}, "high"), ({"samples": 1}, "samples")],
)
def test_setting_outside_its_range_is_named(settings: dict, field: str) -> None:
    with pytest.raises(FieldError) as caught:
        LogisticOracle(LogisticSettings(**settings))
    assert caught.value.field == field


def test_columns_beyond_the_room_are_left_out_by_name_and_known_ones_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("decision.oracles.logistic.MAX_WEIGHTS", 160)
    monkeypatch.setattr("decision.oracles.logistic.MAX_PAIRS", 10)

    def rows(names: int, own: int) -> Interactions:
        contexts = [{f"c{j:02}": 1.0 + j for j in range(names - i)} for i in range(4)]
        actions = [{f"a{j:02}": 1.0 for j in range(own)}] * 4
        reward = np.array([0.0, 1.0, 1.0, 0.0])
        batch = Batch(contexts, actions, ["a"] * 4, np.arange(5))
        return Interactions(batch, np.arange(4), np.ones(4), reward, np.ones(4))

    oracle = LogisticOracle()
    oracle.fit(rows(20, 8))  # 1 + 20 + 8 + 160 weights without the pairs: 15 context columns find room
    assert oracle.left_out == ([f"c{j:02}" for j in range(15, 20)], [])
    oracle.fit(rows(22, 9))
    assert oracle.left_out == ([f"c{j:02}" for j in range(15, 22)], ["a08"])
    again = LogisticOracle.load(oracle.save())
    assert np.array_equal(again.predict(rows(22, 9).batch), oracle.predict(rows(22, 9).batch))


def test_damaged_files_name_themselves() -> None:
    oracle = LogisticOracle()
    oracle.fit(interactions_of(np.random.default_rng(4), 50))
    files = oracle.save()
    numbers = files[NUMBERS_FILE]
    stored = msgspec.json.decode(files[MODEL_FILE])
    for name, data in (
        (MODEL_FILE, b"{"),
        (MODEL_FILE, msgspec.json.encode(stored | {"pairs": [[3, 1]]})),
        (MODEL_FILE, msgspec.json.encode(stored | {"pairs": [[0, 9_999]]})),
        (NUMBERS_FILE, numbers[:-8]),
        (NUMBERS_FILE, np.array([np.nan]).tobytes() + numbers[8:]),
        (NUMBERS_FILE, numbers[:-8] + np.array([-1.0]).tobytes()),
    ):
        with pytest.raises(FieldError) as caught:
            LogisticOracle.load(files | {name: data})
        assert caught.value.field == name
