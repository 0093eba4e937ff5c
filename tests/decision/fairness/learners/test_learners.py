"""FTPL with geometric resampling, the smooth policy, the penalty of upheld pairs, and pairs over many actions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decision.batch import Batch, Interactions
from decision.errors import FieldError
from decision.exploration.rule import Exploration
from decision.fairness.exposure import exposure, slot_weights
from decision.fairness.learners import ftpl, smooth
from decision.fairness.learners.losses import label_losses
from decision.fairness.mining import action_pairs, near
from decision.fairness.penalty import UpheldPairs, concatenate, fit_with_pairs, gaps, pair_rows
from decision.fairness.probe import sample
from decision.oracles.linear import LinearOracle
from decision.policy import OraclePolicy


def test_geometric_resampling_estimates_the_inverse_probability_up_to_its_cap() -> None:
    """Seeded; 20,000 repetitions, five standard errors: fails by chance with probability below 1e-5."""
    rng = np.random.default_rng(0)
    predictions = np.array([[1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 1.0]])
    cap, floor, repeats = 12, 0.05, 20_000
    got = np.array(
        [
            ftpl.resampled(predictions, rng.integers(4, size=cap), np.array([1.0, 1.0]), floor=floor, rng=rng)
            for _ in range(repeats)
        ]
    )
    pi = floor + (1 - floor) * predictions.mean(1)
    wanted = (1.0 - (1.0 - pi) ** cap) / pi
    assert np.all(np.abs(got.mean(0) - wanted) < 5 * got.std(0) / np.sqrt(repeats))
    rejected = ftpl.resampled(predictions, np.array([0]), np.array([0.0, 1.0]), floor=floor, rng=rng)
    assert rejected[0] == 0.0


def test_leaders_follow_the_losses_when_these_outgrow_the_perturbation() -> None:
    rng = np.random.default_rng(1)
    separator = (rng.random((5, 8)) < 0.5).astype(np.float64)
    cumulative = np.array([500.0, 0.0, 500.0, 500.0, 500.0])
    assert set(ftpl.leaders(cumulative, separator, scale=1.0, draws=50, rng=rng)) == {1}
    spread = ftpl.leaders(np.zeros(5), separator, scale=1.0, draws=200, rng=rng)
    assert len(set(spread.tolist())) > 1
    share = ftpl.empirical(np.eye(5), np.array([1, 1, 1, 4]), floor=0.0)
    assert share.tolist() == [0.0, 0.75, 0.0, 0.0, 0.25]


@pytest.mark.parametrize(("scale", "draws", "field"), [(0.0, 1, "scale"), (1.0, 0, "draws")])
def test_leaders_refuse_numbers_outside_their_range(scale: float, draws: int, field: str) -> None:
    with pytest.raises(FieldError) as caught:
        ftpl.leaders(np.zeros(2), np.zeros((2, 1)), scale=scale, draws=draws, rng=np.random.default_rng(0))
    assert caught.value.field == field


def test_ftpl_learns_the_better_of_two_hypotheses_from_one_sided_labels() -> None:
    """Seeded; everyone approved by the first hypothesis pays, nobody approved by the second does."""
    rng = np.random.default_rng(2)
    predictions = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    labels, cumulative = np.array([1.0, 1.0, 0.0, 0.0]), np.zeros(2)
    for _ in range(60):
        drawn = ftpl.leaders(cumulative, predictions.T, scale=2.0, draws=10, rng=rng)
        pi = ftpl.empirical(predictions, drawn, floor=0.05)
        approved = (rng.random(4) < pi).astype(np.float64)
        fresh = ftpl.leaders(cumulative, predictions.T, scale=2.0, draws=20, rng=rng)
        inverse = ftpl.resampled(predictions, fresh, approved, floor=0.05, rng=rng)
        cumulative += label_losses(predictions, approved, labels, 1.0 / np.where(inverse > 0, inverse, 1.0))
    assert cumulative[0] < cumulative[1]


@settings(deadline=None)
@given(st.integers(0, 200))
def test_the_smooth_policys_gap_shrinks_with_the_multiplier_and_its_gradient_is_exact(seed: int) -> None:
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(40, 3))
    costs = np.sign(-features[:, 0]) * rng.random(40)
    favoured, disfavoured = np.array([int(features[:, 0].argmax())]), np.array([int(features[:, 0].argmin())])
    pi = {}
    for cost in (0.0, 1_000.0):
        weights = smooth.fit(np.zeros(4), features, costs, favoured, disfavoured, cost=cost, alpha=0.1)
        p = smooth.probability(weights, features)
        pi[cost] = float(p[favoured[0]] - p[disfavoured[0]])
    assert pi[0.0] > 0.3
    assert pi[1_000.0] < 0.2


ACTIONS = [{"give": 1.0}, {"give": 0.0}]


def batch_of(contexts: list[dict[str, float]]) -> Batch:
    n = len(contexts)
    return Batch(contexts, ACTIONS * n, ["approve", "deny"] * n, np.arange(n + 1, dtype=np.int64) * 2)


def rewarded(n: int, seed: int) -> Interactions:
    """People of two groups of which one pays when approved; who is denied is worth a half."""
    rng = np.random.default_rng(seed)
    contexts = [
        {"group": float(g), "merit": float(m)} for g, m in zip(rng.integers(2, size=n), rng.random(n), strict=True)
    ]
    chosen = np.arange(n) * 2 + rng.integers(2, size=n)
    good = np.array([0.2 + 0.6 * context["group"] for context in contexts])
    reward = np.where(chosen % 2 == 0, (rng.random(n) < good).astype(np.float64), 0.5)
    return Interactions(batch_of(contexts), chosen.astype(np.int64), np.full(n, 0.5), reward, np.full(2 * n, 0.5))


@pytest.mark.parametrize("kind", ["softmax", "squarecb", "epsilon_greedy"])
def test_upheld_pairs_are_treated_alike_after_the_fit_under_every_rule(kind: str) -> None:
    interactions = rewarded(400, 0)
    pairs = UpheldPairs(
        batch_of([{"group": 1.0, "merit": 0.5}, {"group": 1.0, "merit": 0.2}]),
        batch_of([{"group": 0.0, "merit": 0.5}, {"group": 0.0, "merit": 0.2}]),
        np.array([0, 2]),
        np.array([0, 2]),
        np.array([0.1, 0.1]),
    )
    rule = Exploration(kind=kind, gamma=100.0, inverse_temperature=10.0)  # type: ignore[arg-type]
    blind = LinearOracle()
    blind.fit(interactions)
    fits: list[int] = []

    def again(rows: Interactions) -> LinearOracle:
        oracle = LinearOracle()
        oracle.fit(concatenate([interactions, rows]))
        fits.append(len(rows))
        return oracle

    fair = fit_with_pairs(blind, again, pairs, rule, cost=8.0)
    assert gaps(OraclePolicy(blind, rule), pairs).min() > 0.5
    if kind == "epsilon_greedy":  # probabilities jump where scores tie: equal to the last digit is not to be had
        assert fair.rounds > 1
    else:
        assert np.abs(fair.gaps).max() <= 0.1
        assert fair.cost > 0
    satisfied = fit_with_pairs(fair.oracle, again, pairs, rule, cost=8.0)
    if kind != "epsilon_greedy":
        assert (satisfied.cost, satisfied.oracle) == (0.0, fair.oracle)  # asks for nothing, changes nothing


def test_rows_of_a_pair_have_the_mean_score_as_their_expected_reward() -> None:
    interactions = rewarded(200, 1)
    oracle = LinearOracle()
    oracle.fit(interactions)
    pairs = UpheldPairs(
        batch_of([{"group": 1.0}]), batch_of([{"group": 0.0}]), np.array([0]), np.array([0]), np.array([0.0])
    )
    rows = pair_rows(pairs, oracle, 6.0, low=0.0, high=1.0)
    assert set(rows.reward) == {0.0, 1.0}
    for action in (0, 1):
        mean = (oracle.predict(pairs.first)[action] + oracle.predict(pairs.second)[action]) / 2
        for group in (0.0, 1.0):
            mine = [
                i
                for i in range(len(rows))
                if rows.batch.contexts[i]["group"] == group and rows.chosen[i] - rows.batch.offsets[i] == action
            ]
            assert rows.weights[mine].sum() == pytest.approx(6.0)
            assert rows.weights[mine] @ rows.reward[mine] / 6.0 == pytest.approx(mean)


def test_without_pairs_a_fit_is_the_fit() -> None:
    interactions = rewarded(50, 2)
    oracle = LinearOracle()
    oracle.fit(interactions)
    nothing = np.zeros(0, dtype=np.int64)
    pairs = UpheldPairs(batch_of([]), batch_of([]), nothing, nothing, np.zeros(0))
    done = fit_with_pairs(oracle, lambda rows: oracle, pairs, Exploration(), cost=8.0)
    assert (done.oracle, done.cost, done.rounds) == (oracle, 0.0, 1)


def test_a_report_names_the_action_on_which_two_people_differ_most() -> None:
    features = np.array([[0.0], [0.1], [5.0]])
    probability = np.array([[0.2, 0.7, 0.1], [0.2, 0.1, 0.7], [np.nan, 1.0, np.nan]])
    pairs, action = action_pairs(features, probability, np.array([0, 0]), np.array([1, 2]))
    assert action.tolist() == [1, 1] or action.tolist() == [2, 1]
    assert pairs.gap == pytest.approx([0.6, 0.3])
    assert (pairs.favoured[1], pairs.disfavoured[1]) == (2, 0)
    none, _ = action_pairs(features, np.full((3, 1), np.nan), np.array([0]), np.array([1]))
    assert none.gap.size == 0


def test_neighbours_are_unordered_pairs_once() -> None:
    i, j = near(np.arange(6.0)[:, None], 2)
    assert len({frozenset(pair) for pair in zip(i.tolist(), j.tolist(), strict=True)}) == i.size
    assert {(0, 1), (2, 3)} <= set(zip(i.tolist(), j.tolist(), strict=True))
    assert near(np.zeros((1, 2)), 3)[0].size == 0


@given(st.integers(1, 6), st.integers(0, 100))
def test_exposures_are_probabilities_of_being_seen(slots: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    pmfs = [dict(zip("abc", rng.dirichlet(np.ones(3)).tolist(), strict=True)) for _ in range(slots)]
    got = exposure(pmfs)
    assert sum(got.values()) == pytest.approx(1.0)
    assert slot_weights(slots).sum() == pytest.approx(1.0)
    assert np.all(np.diff(slot_weights(slots)) < 0) or slots == 1
    assert exposure([pmfs[0]]) == pytest.approx(pmfs[0])


def test_a_probe_smaller_than_its_strata_still_reaches_everyone() -> None:
    drawn = sample(np.arange(10), 4, np.random.default_rng(0))
    assert drawn.chosen.size == 4
    assert set(drawn.inclusion) == {0.4}
