"""No number that a request may bring makes a model deaf to the others, or to anything."""

from __future__ import annotations

import numpy as np
import pytest

from decision.batch import Batch, Interactions
from decision.features import MAX_NUMBER
from decision.oracles.bounds import bounds
from decision.oracles.factory import load_oracle, new_oracle
from decision.oracles.kind import OracleSettings
from decision.oracles.logistic import LogisticOracle
from decision.oracles.products import ColumnSet

KINDS = ("logistic", "linear", "vw", "lightgbm", "neural")


def log(
    n: int, wild: int, value: float, seed: int = 0, unit: float = 1.0, far: float = 0.0
) -> tuple[Interactions, np.ndarray]:
    """Return a log in which action 1 pays where x is above its middle, and x; `wild` of them came in as `value`."""
    rng = np.random.default_rng(seed)
    x, drawn = rng.normal(size=n), rng.integers(0, 2, n)
    reward = ((x > 0) == (drawn == 1)).astype(float)
    seen = far + unit * x
    seen[rng.choice(n, wild, replace=False)] = value
    contexts = [{"x": number, f"segment={i % 3}": 1.0} for i, number in enumerate(seen.tolist())]
    offsets = np.arange(n + 1) * 2
    batch = Batch(contexts, [{"a=0": 1.0}, {"a=1": 1.0}] * n, ["0", "1"] * n, offsets)
    return Interactions(batch, offsets[:-1] + drawn, np.full(n, 0.5), reward, np.full(2 * n, 0.5)), x


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("n", "wild", "value", "unit", "far"),
    [(300, 1, 1e9, 1.0, 0.0), (600, 14, -MAX_NUMBER, 1.0, 0.0), (600, 6, 1e12, 1e6, 0.0), (400, 1, 1e9, 5.0, 2020.0)],
)
def test_a_few_wild_numbers_leave_the_others_their_say(
    kind: str, n: int, wild: int, value: float, unit: float, far: float
) -> None:
    far = 0.0 if kind == "vw" else far  # VW does not centre, with or without wild numbers
    told, _ = log(n, wild, value, unit=unit, far=far)
    oracle = new_oracle(OracleSettings(kind=kind))
    oracle.fit(told)
    asked, x = log(400, 0, 0.0, seed=1, unit=unit, far=far)
    scores = oracle.predict(asked.batch).reshape(-1, 2)
    right = (scores[:, 1] > scores[:, 0]) == (x > 0)
    assert right[np.abs(x) > 0.5].mean() > 0.85
    hostile, _ = log(40, 40, MAX_NUMBER)
    found = oracle.predict(hostile.batch)
    assert np.isfinite(found).all()
    assert np.array_equal(load_oracle(kind, oracle.save()).predict(hostile.batch), found)


@pytest.mark.parametrize("kind", KINDS)
def test_huge_numbers_and_their_products_on_both_sides_end_in_a_model_that_loads(kind: str) -> None:
    rng = np.random.default_rng(0)
    n = 60
    sizes = 10.0 ** rng.integers(-15, 16, (2, n))
    contexts = [{"x": a, "y": -MAX_NUMBER, "z": 1e-300} for a in sizes[0].tolist()]
    actions = [{"p": b, "q": MAX_NUMBER, "r": -b} for b in sizes[1].tolist()]
    batch = Batch(contexts, actions, ["a"] * n, np.arange(n + 1))
    told = Interactions(batch, np.arange(n), np.ones(n), rng.integers(0, 2, n).astype(float), np.ones(n))
    oracle = new_oracle(OracleSettings(kind=kind))
    oracle.fit(told)
    found = oracle.predict(batch)
    assert np.isfinite(found).all()
    assert np.array_equal(load_oracle(kind, oracle.save()).predict(batch), found)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [1, 2, 30])
def test_few_rows_without_a_feature_are_no_error(kind: str, n: int) -> None:
    batch = Batch([{}] * n, [{}] * n, ["a"] * n, np.arange(n + 1))
    oracle = new_oracle(OracleSettings(kind=kind))
    oracle.fit(Interactions(batch, np.arange(n), np.ones(n), np.arange(n) % 2.0, np.ones(n)))
    assert np.isfinite(load_oracle(kind, oracle.save()).predict(batch)).all()


def bounded(*values: float) -> tuple[float, float]:
    low, high = bounds(np.zeros(len(values), np.int64), np.array(values), np.zeros(1, np.int64))
    return float(low[0]), float(high[0])


def test_bounds_follow_the_bulk_whatever_the_rest_is() -> None:
    rng = np.random.default_rng(3)
    usual = rng.normal(10.0, 2.0, 500)
    low, high = bounded(*usual, *[1e15] * 40)
    assert (-25.0 < low < -5.0, 25.0 < high < 45.0) == (True, True)
    assert bounded(*[0.0] * 480, *[3.0] * 19, 1e9) == (-15.0, 15.0)  # mostly 0: bounded by what the others are
    assert bounded(*[5.0] * 9) == (-20.0, 30.0)
    skewed = np.exp(rng.normal(size=5_000))
    assert np.mean(skewed > bounded(*skewed)[1]) < 0.01


def test_numbers_within_their_bounds_are_scaled_as_they_were() -> None:
    rng = np.random.default_rng(4)
    values = rng.normal(size=2_000)
    columns = ColumnSet().extended([{"x": value} for value in values.tolist()])
    assert columns.scale == pytest.approx([float(np.sqrt(np.mean(values**2)))], rel=1e-14)
    assert columns.shift == [0.0]


def test_a_model_without_bounds_reads_on_as_it_was() -> None:
    """Files of former versions have neither low nor high."""
    told, _ = log(200, 0, 0.0)
    oracle = LogisticOracle()
    oracle.fit(told)
    files = oracle.save()
    old = files["logistic.json"]
    for side in (oracle._context, oracle._action):
        for name in ("low", "high"):
            old = old.replace(f',"{name}":{_json(getattr(side, name))}'.encode(), b"")
    assert b"low" not in old.replace(b'"low":0.0', b"")
    again = LogisticOracle.load(files | {"logistic.json": old})
    assert np.array_equal(again.predict(told.batch), oracle.predict(told.batch))
    assert again._context.high == [MAX_NUMBER] * len(again._context)


def _json(numbers: list[float]) -> str:
    return "[" + ",".join(repr(number) for number in numbers) + "]"
