from __future__ import annotations

import msgspec
import numpy as np
import pytest

from decision.batch import Batch, Interactions
from decision.errors import FieldError
from decision.oracles.linear import MODEL_FILE, NUMBERS_FILE, LinearOracle, LinearSettings
from tests.strategies import interactions_of


def test_predictions_are_the_ridge_solution() -> None:
    """Checked against least squares on the rows with sqrt(ridge) times the identity appended."""
    rng = np.random.default_rng(0)
    n = 300
    contexts = [{"x": float(rng.random()), "y": float(rng.normal())} for _ in range(n)]
    actions = [{"a": float(rng.random())} for _ in range(2 * n)]
    reward = rng.random(n)
    batch = Batch(contexts, actions, ["0", "1"] * n, np.arange(n + 1) * 2)
    chosen = np.arange(n) * 2 + rng.integers(0, 2, n)
    oracle = LinearOracle(LinearSettings(ridge=0.5, low=-9.0, high=10.0))
    oracle.fit(Interactions(batch, chosen, np.full(n, 0.5), reward, np.full(2 * n, 0.5)))

    def row(i: int, j: int) -> list[float]:
        x, y, a = contexts[i]["x"], contexts[i]["y"], actions[j]["a"]
        return [1.0, x, y, a, x * a, y * a]

    x = np.array([row(i, int(j)) for i, j in enumerate(chosen)])
    stacked = np.vstack((x, np.sqrt(0.5) * np.eye(6)))
    weights = np.linalg.lstsq(stacked, np.concatenate((reward - 0.5, np.zeros(6))), rcond=None)[0]
    expected = 0.5 + np.array([row(j // 2, j) for j in range(2 * n)]) @ weights
    assert np.allclose(oracle.predict(batch), expected, atol=1e-9)


def test_data_may_come_in_parts() -> None:
    data = interactions_of(np.random.default_rng(1), 400)
    whole, parts = LinearOracle(), LinearOracle()
    whole.fit(data)
    for rows in (np.arange(150), np.arange(150, 400)):
        parts.fit(data.take(rows))
    assert np.allclose(parts.predict(data.batch), whole.predict(data.batch), atol=1e-9)


def test_batches_larger_than_a_chunk_are_predicted_alike() -> None:
    data = interactions_of(np.random.default_rng(2), 1_200)
    oracle = LinearOracle()
    oracle.fit(data)
    out, offsets = oracle.predict(data.batch), data.batch.offsets
    for i in (0, 511, 512, 1_023, 1_024, 1_199):
        alone = oracle.predict(data.batch.take(np.array([i])))
        assert np.allclose(alone, out[offsets[i] : offsets[i + 1]], rtol=0, atol=1e-12)


def test_predictions_stay_in_the_range_and_start_in_its_middle() -> None:
    data = interactions_of(np.random.default_rng(3), 100)
    oracle = LinearOracle(LinearSettings(low=-1.0, high=0.2))
    assert set(oracle.predict(data.batch)) == {-0.4}
    oracle.fit(data)
    out = oracle.predict(data.batch)
    assert (out.min() >= -1.0, out.max()) == (True, 0.2)


def test_more_products_than_it_can_hold_leave_the_rarest_columns_out_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("decision.oracles.linear.MAX_WEIGHTS", 60)
    contexts = [{f"c{j:02}": 1.0 for j in range(20) if j % 2 or i < 2} for i in range(3)]
    actions = [{f"a{j}": 1.0 for j in range(4)}] * 3
    few = Interactions(Batch(contexts, actions, ["a"] * 3, np.arange(4)), np.arange(3), *(np.ones(3),) * 3)
    oracle = LinearOracle()
    oracle.fit(few)
    assert oracle.left_out == ([f"c{j:02}" for j in range(2, 20, 2)], [])
    assert np.isfinite(oracle.predict(few.batch)).all()
    alone = LinearOracle(LinearSettings(interactions=False))
    alone.fit(few)
    assert alone.left_out == ([], [])


def test_columns_that_say_the_same_to_the_last_digit_are_no_error() -> None:
    """Numbers near a million and their products: X'X is singular as far as doubles tell."""
    rng = np.random.default_rng(5)
    n = 400
    x = 1e6 + rng.normal(size=(n, 3))
    contexts = [{"x": a, "y": b, "twice": a, "z": c} for a, b, c in x.tolist()]
    actions = [{"a": 1e6 + a, "b": 1e6 + 2 * a} for a in rng.normal(size=n).tolist()]
    reward = (x[:, 0] > 1e6).astype(float)
    log = Interactions(Batch(contexts, actions, ["a"] * n, np.arange(n + 1)), np.arange(n), *(np.ones(n),) * 3)
    log = Interactions(log.batch, log.chosen, log.propensity, reward, log.pmf)
    oracle = LinearOracle()
    oracle.fit(log)
    right = (oracle.predict(log.batch) > 0.5) == (reward > 0.5)
    assert right.mean() > 0.95
    assert np.isfinite(oracle.members(log.batch)).all()


@pytest.mark.parametrize(
    ("settings", "field"),
    [({"ridge": 0.0}, "ridge"), ({"ridge": float("nan")}, "ridge"), ({"low": 1.0, "high": 1.0}, "high")],
)
def test_setting_outside_its_range_is_named(settings: dict, field: str) -> None:
    with pytest.raises(FieldError) as caught:
        LinearOracle(LinearSettings(**settings))
    assert caught.value.field == field


def test_damaged_files_name_themselves() -> None:
    oracle = LinearOracle()
    oracle.fit(interactions_of(np.random.default_rng(4), 50))
    files = oracle.save()
    numbers = files[NUMBERS_FILE]
    stored = msgspec.json.decode(files[MODEL_FILE])
    wider = msgspec.json.encode(stored | {"context_columns": [f"c{j}" for j in range(9_999)]})
    for name, data, blamed in (
        (MODEL_FILE, b"{", MODEL_FILE),
        (MODEL_FILE, wider, NUMBERS_FILE),
        (NUMBERS_FILE, numbers[:-8], NUMBERS_FILE),
        (NUMBERS_FILE, numbers + b"x", NUMBERS_FILE),
        (NUMBERS_FILE, np.array([np.nan]).tobytes() + numbers[8:], NUMBERS_FILE),
    ):
        with pytest.raises(FieldError) as caught:
            LinearOracle.load(files | {name: data})
        assert caught.value.field == blamed
    with pytest.raises(FieldError):
        LinearOracle.load({MODEL_FILE: files[MODEL_FILE]})
