from __future__ import annotations

import numpy as np
import pytest

from decision.batch import Batch, Floats, Interactions
from decision.columns import FeatureRows, Texts
from decision.exploration.sigma import Spread, predicted_of_drawn
from decision.oracles.factory import new_oracle
from decision.oracles.kind import OracleSettings

NOTHING = (np.zeros(0), np.zeros(0), np.zeros(0))


def log(reward: Floats) -> Interactions:
    """Return decisions between two actions, the second drawn, whose contexts carry the number of the row."""
    n = len(reward)
    batch = Batch(
        [{"x": float(i)} for i in range(n)],
        [{"a=0": 1.0}, {"a=1": 1.0}] * n,
        ["0", "1"] * n,
        np.arange(n + 1, dtype=np.int64) * 2,
    )
    chosen = np.arange(n, dtype=np.int64) * 2 + 1
    return Interactions(batch, chosen, np.full(n, 0.5), reward, np.full(2 * n, 0.5))


def spread_of(reward: Floats, weight: Floats | None = None, *, low: float = 0.0, high: float = 1.0) -> Spread:
    spread = Spread(low, high)
    spread.add(reward, np.ones(len(reward)) if weight is None else weight)
    return spread


def test_sigma_is_the_variance_learned_from_times_the_share_left_unexplained_where_nothing_was_learned() -> None:
    """Rewards 1, 0, 0 of weights 2, 1, 1: mean .5, all deviations .25, the heaviest once more: (1 + .5) / 4. Unseen
    rewards 1, 1, 0 of weights 2, 1, 1, predicted .75, .5, .5: (2/16 + 1/4 + 1/4 + 1/4) / (4/4 + 1/4)."""
    spread = spread_of(np.array([1.0, 0.0, 0.0]), np.array([2.0, 1.0, 1.0]))
    unseen = (np.array([1.0, 1.0, 0.0]), np.array([0.75, 0.5, 0.5]), np.array([2.0, 1.0, 1.0]))
    assert spread.sigma(*unseen) == pytest.approx(np.sqrt(1.5 / 4.0 * 0.875 / 1.25))


def test_sigma_approaches_the_noise() -> None:
    """10,000 normal errors: a standard error of .7%, what counts once more adds .1%; five fail once in 1e6."""
    rng = np.random.default_rng(0)
    expected = rng.normal(size=20_000)
    reward = expected + 3.0 * rng.normal(size=20_000)
    spread = spread_of(reward[:10_000], low=-20.0, high=20.0)
    found = spread.sigma(reward[10_000:], expected[10_000:], np.ones(10_000))
    assert found == pytest.approx(3.0, rel=5 * 0.0071)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("rows", "columns"), [(300, 100), (400, 80)])
def test_a_model_with_many_weights_is_not_believed_on_its_own_rows(seed: int, rows: int, columns: int) -> None:
    """Rewards are noise of deviation .5: what a model explains of its own rows is nothing. Told from 2,000 unseen rows
    sigma is at least .5 less four standard errors of 1%; on its own rows the model would leave less."""
    rng = np.random.default_rng([seed, columns])

    def noise(n: int) -> Interactions:
        names, flat = [f"x{j}" for j in range(columns)], np.tile(np.arange(columns, dtype=np.int32), n)
        at, each = np.arange(n + 1, dtype=np.int64), np.arange(n, dtype=np.int64)
        contexts = FeatureRows(names, flat, rng.normal(size=n * columns), at * columns, each)
        batch = Batch(contexts, FeatureRows.empty(n), Texts(["a"], each * 0), at)
        return Interactions(batch, each, np.ones(n), rng.integers(0, 2, n).astype(np.float64), np.ones(n))

    seen, unseen = noise(rows), noise(2_000)
    oracle = new_oracle(OracleSettings())
    oracle.fit(seen)
    sigma = spread_of(seen.reward).sigma(
        *(unseen.reward, predicted_of_drawn(oracle.predict, unseen), np.ones(2_000)),
    )
    own = np.sqrt(np.mean((seen.reward - predicted_of_drawn(oracle.predict, seen)) ** 2))
    assert sigma > 0.48 > own


@pytest.mark.parametrize("times", [1e-300, 1e-3, 1e3, 1e150])
@pytest.mark.parametrize("plus", [0.0, -7.0])
def test_sigma_has_the_unit_of_rewards_and_no_zero(times: float, plus: float) -> None:
    rng = np.random.default_rng(1)
    reward, expected, weight = (rng.random(500) < 0.05).astype(np.float64), rng.random(500), rng.random(500) + 0.1

    def sigma(moved: Floats, predicted: Floats, low: float, high: float) -> float:
        spread = spread_of(moved[:400], weight[:400], low=low, high=high)
        return spread.sigma(moved[400:], predicted[400:], weight[400:])

    alone = sigma(reward, expected, 0.0, 1.0)
    again = sigma(times * (reward + plus), times * (expected + plus), times * plus, times * (plus + 1.0))
    assert again == pytest.approx(times * alone, rel=1e-9)


def test_rewards_that_do_not_differ_say_nothing_of_noise() -> None:
    spread = Spread(-2.0, 1.0)
    assert spread.sigma(*NOTHING) == 3.0
    spread.add(np.zeros(400), np.ones(400))
    assert spread.sigma(np.zeros(5), np.zeros(5), np.ones(5)) == 3.0


def test_without_unseen_rows_nothing_is_explained() -> None:
    reward = np.array([0.0, 0.5, 1.0])
    assert spread_of(reward).sigma(*NOTHING) == pytest.approx(np.sqrt((2 * 0.25 + 0.25) / 3.0))


@pytest.mark.parametrize("clicks", [0, 1, 8])
def test_few_clicks_among_the_unseen_rows_move_sigma_little(clicks: int) -> None:
    """Two in a hundred of 10,000 rows clicked: sigma is about .14, whatever the 400 unseen rows happened to hold."""
    spread = spread_of((np.arange(10_000) % 50 == 0).astype(np.float64))
    reward = (np.arange(400) < clicks).astype(np.float64)
    assert spread.sigma(reward, np.full(400, 0.025), np.ones(400)) == pytest.approx(0.14, rel=0.05)


def test_a_perfect_prediction_leaves_a_unit() -> None:
    reward = np.repeat((0.0, 5.0, 10.0), 100_000)
    sigma = spread_of(reward, high=10.0).sigma(reward, reward, np.ones(reward.size))
    assert 0.0 < sigma < 0.05


def test_rows_without_weight_do_not_count() -> None:
    some, weight = np.array([1.0, 0.0, 0.5]), np.array([1.0, 1.0, 0.0])
    unseen = (some, np.array([0.7, 0.2, 0.1]), weight)
    without = tuple(column[:2] for column in unseen)
    assert spread_of(some, weight).sigma(*unseen) == spread_of(some[:2]).sigma(*without)


@pytest.mark.parametrize("cuts", [[1, 5, 170], [399], [0, 200, 200]])
def test_rows_in_chunks_are_the_same_as_at_once(cuts: list[int]) -> None:
    rng = np.random.default_rng(2)
    reward, weight = rng.normal(size=400) ** 3, rng.integers(0, 3, 400).astype(np.float64)
    chunked = Spread(-30.0, 30.0)
    for rows in np.split(np.arange(400), cuts):
        chunked.add(reward[rows], weight[rows])
    unseen = (rng.normal(size=90), rng.normal(size=90), np.ones(90))
    whole = spread_of(reward, weight, low=-30.0, high=30.0)
    assert chunked.sigma(*unseen) == pytest.approx(whole.sigma(*unseen), rel=1e-12)


def test_only_the_drawn_action_is_asked_about() -> None:
    def of_second(batch: Batch) -> Floats:
        assert list(batch.action_ids) == ["1"] * 3
        own = [0.25 if "a=1" in action else 1e9 for action in batch.actions]
        return np.array(own) + [context["x"] for context in batch.contexts]

    assert predicted_of_drawn(of_second, log(np.zeros(3))).tolist() == [0.25, 1.25, 2.25]
