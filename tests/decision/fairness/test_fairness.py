from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decision.errors import FieldError, SupportError
from decision.fairness.learners.experts import Weights, approval, distribution, update
from decision.fairness.learners.hindsight import best_fair
from decision.fairness.learners.losses import doubly_robust_costs, label_losses, report_losses
from decision.fairness.learners.multiplier import DualRule, after
from decision.fairness.learners.replay import Round, replay
from decision.fairness.mining import all_pairs, learn_metric, neighbour_pairs, rank_by_metric, rank_by_ratio
from decision.fairness.panel import is_violation, threshold, votes, votes_needed
from decision.fairness.probe import Probe, sample, strata_of, violation_rate
from simulators.environments.auditors import acceptable_gaps, draw_auditors, stage, synthetic

GAPS = st.floats(-1, 1)
PANEL = st.lists(st.floats(0, 1), min_size=1, max_size=9)


def test_expected_losses_are_error_plus_constant_plus_the_pairs_gap() -> None:
    """Exact, by enumerating every pattern of approvals."""
    rng = np.random.default_rng(0)
    k, count, cost = 3, 5, 7.0
    h = (rng.random((k, count)) < 0.5).astype(float)
    y = np.array([1.0, 0.0, 1.0])
    pi = np.array([0.3, 0.8, 0.6])
    expected = np.zeros(count)
    for pattern in itertools.product((0.0, 1.0), repeat=k):
        approved = np.array(pattern)
        chance = np.prod(np.where(approved > 0, pi, 1 - pi))
        losses = label_losses(h, approved, np.where(approved > 0, y, np.nan), pi)
        expected += chance * (losses + report_losses(h[0], h[2], cost))
    error = np.abs(h - y[:, None]).sum(0)
    constant = (1 - y).sum()
    assert expected == pytest.approx(error + constant + cost * (h[0] - h[2] + 1))


@settings(max_examples=200)
@given(gap=GAPS, acceptable=PANEL, alpha=st.floats(0, 0.5), quorum=st.floats(0.01, 1))
def test_panel_equals_one_auditor_at_the_qth_smallest_gap(gap, acceptable, alpha, quorum) -> None:
    panel = np.array(acceptable)
    assert bool(is_violation(np.array(gap), panel, alpha=alpha, quorum=quorum)) == bool(
        gap > threshold(panel, alpha=alpha, quorum=quorum)
    )


@given(gap=GAPS, acceptable=PANEL)
def test_panel_is_monotone_in_quorum_and_sensitivity(gap, acceptable) -> None:
    panel, one = np.array(acceptable), np.array(gap)
    verdicts = [bool(is_violation(one, panel, alpha=0.1, quorum=q)) for q in (0.2, 0.5, 0.8, 1.0)]
    assert verdicts == sorted(verdicts, reverse=True)
    verdicts = [bool(is_violation(one, panel, alpha=a, quorum=0.6)) for a in (0.0, 0.1, 0.3, 0.9)]
    assert verdicts == sorted(verdicts, reverse=True)


def test_votes_needed_are_not_raised_by_binary_rounding() -> None:
    assert [votes_needed(5, 0.6), votes_needed(5, 0.2), votes_needed(3, 1.0), votes_needed(7, 1e-9)] == [3, 1, 3, 1]
    assert votes(np.array(0.5), np.array([0.1, 0.3, 0.6]), 0.1).tolist() == 2
    for quorum, auditors in ((0.0, 5), (1.1, 5), (0.5, 0)):
        with pytest.raises(FieldError):
            votes_needed(auditors, quorum)


@given(seed=st.integers(0, 500), cost=st.floats(0.1, 50))
def test_a_report_alone_never_widens_the_reported_gap(seed: int, cost: float) -> None:
    rng = np.random.default_rng(seed)
    h = (rng.random((2, 40)) < 0.5).astype(float)
    before = Weights.prior(40)
    later = update(before, report_losses(h[0], h[1], cost))
    gap = [(h[0] - h[1]) @ distribution(state) for state in (before, later)]
    assert gap[1] <= gap[0] + 1e-12


def test_rounds_without_a_report_leave_the_pair_out() -> None:
    rng = np.random.default_rng(0)
    h = (rng.random((4, 10)) < 0.5).astype(float)
    row = Round(h, np.ones(4), np.ones(4), np.full(4, 0.5), None, np.zeros(5))
    plain = update(Weights.prior(10), label_losses(h, np.ones(4), np.ones(4), np.full(4, 0.5)))
    assert np.array_equal(replay([row], alpha=0.1, quorum=0.6, cost=100.0).weights, distribution(plain))


def rounds(seed: int, count: int = 60) -> list[Round]:
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(count):
        pi = rng.uniform(0.05, 0.95, 4)
        approved = (rng.random(4) < pi).astype(float)
        labels = np.where(approved > 0, (rng.random(4) < 0.6).astype(float), np.nan)
        pair = (0, 1) if pi[0] > pi[1] else (1, 0)
        out.append(Round((rng.random((4, 30)) < 0.5).astype(float), approved, labels, pi, pair, rng.random(5) * 0.6))
    return out


def test_replay_at_the_same_rule_is_identical_to_the_last_bit_and_a_stricter_quorum_upholds_more() -> None:
    stored = rounds(3)
    rule = {"alpha": 0.1, "quorum": 0.6, "cost": 5.0, "dual": DualRule()}
    first, second = replay(stored, **rule), replay(stored, **rule)
    assert np.array_equal(first.weights, second.weights)
    assert (first.upheld, first.cost) == (second.upheld, second.cost)
    strict = replay(stored, **rule | {"quorum": 0.2})
    assert set(first.upheld) < set(strict.upheld)


def test_labels_that_arrive_in_another_order_give_the_same_sums() -> None:
    stored = rounds(4, 20)
    losses = [label_losses(r.predictions, r.approved, r.labels, r.propensity) for r in stored]
    forward = sum(losses[1:], start=losses[0])
    backward = sum(losses[-2::-1], start=losses[-1])
    assert forward == pytest.approx(backward, rel=1e-12)


@pytest.mark.statistical
def test_every_report_lies_more_than_eps_above_the_best_fair_policys_gap() -> None:
    """The key lemma, exact on each report of a seeded run: reported gap - comparator's gap > eps."""
    alpha, quorum, eps = 0.2, 0.6, 0.05
    scene = stage(np.random.default_rng(1), synthetic(np.random.default_rng(0)), rounds=200, experts=40)
    limits = threshold(scene.acceptable, alpha=alpha, quorum=quorum)
    fair = best_fair(scene.predictions, scene.labels, limits, eps=eps)
    state, reports = Weights.prior(40), 0
    for t in range(200):
        pi = approval(scene.predictions[t], distribution(state), floor=0.01)
        gap = pi[:, None] - pi[None, :]
        theirs = scene.predictions[t] @ fair.weights
        for i, j in zip(*np.nonzero(gap > limits[t]), strict=True):
            reports += 1
            assert gap[i, j] - (theirs[i] - theirs[j]) > eps - 1e-6
        state = update(state, label_losses(scene.predictions[t], np.ones(8), scene.labels[t], np.ones(8)))
    assert reports > 20


def test_best_fair_policy_has_no_violation_and_an_unfair_one_less_error() -> None:
    scene = stage(np.random.default_rng(2), synthetic(np.random.default_rng(0)), rounds=150, experts=60)
    limits = threshold(scene.acceptable, alpha=0.2, quorum=0.6)
    fair = best_fair(scene.predictions, scene.labels, limits, eps=0.05)
    pi = scene.predictions @ fair.weights
    gap = pi[:, :, None] - pi[:, None, :]
    gap[:, np.arange(8), np.arange(8)] = -1
    assert (gap <= limits - 0.05 + 1e-6).all()
    assert fair.error >= np.abs(scene.predictions - scene.labels[:, :, None]).mean((0, 1)).min()
    only = scene.predictions[:, :, :1]
    with pytest.raises(SupportError):
        best_fair(only, scene.labels, np.full_like(limits, -0.5), eps=0.0)


def test_probe_estimate_is_unbiased_under_the_stratified_sampler() -> None:
    """Mean of 1,000 seeded samples within 5 standard errors of the truth: fails with probability below 1e-6."""
    rng = np.random.default_rng(0)
    distance, gap = rng.random(400), rng.random(400) * 0.6
    truth = (gap > 0.3 + 0.3 * distance).astype(float)
    strata = strata_of(distance, gap)
    estimates = []
    for seed in range(1_000):
        probe = sample(strata, 60, np.random.default_rng(seed))
        estimates.append(violation_rate(truth[probe.chosen], probe, 400).value)
    error = np.std(estimates) / np.sqrt(len(estimates))
    assert abs(np.mean(estimates) - truth.mean()) < 5 * error


def test_probe_of_everything_is_the_truth_without_doubt() -> None:
    probe = Probe(np.arange(10), np.ones(10), np.zeros(10, dtype=np.int64))
    rate = violation_rate(np.array([1.0] * 3 + [0.0] * 7), probe, 10)
    assert rate == (0.3, 0.3, 0.3, 10)
    with pytest.raises(FieldError, match="budget"):
        sample(np.zeros(3, dtype=np.int64), 0, np.random.default_rng(0))


def test_doubly_robust_cost_is_unbiased_whatever_the_model_says() -> None:
    pi, y, q = np.array([0.3]), np.array([1.0]), np.array([0.1])
    seen = doubly_robust_costs(np.array([1.0]), y, pi, q)
    unseen = doubly_robust_costs(np.array([0.0]), np.array([np.nan]), pi, q)
    assert 0.3 * seen[0] + 0.7 * unseen[0] == pytest.approx(1 - 2 * y[0])


@given(cost=st.floats(0.5, 500), violation=st.floats(0, 1))
def test_multiplier_moves_towards_the_target_and_stays_inside_its_range(cost: float, violation: float) -> None:
    rule = DualRule()
    moved = after(cost, violation, rule)
    assert rule.low <= moved <= rule.high
    assert (moved >= cost) if violation > rule.target else (moved <= cost)


def test_mining_puts_the_planted_pair_first() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(40, 5))
    probability = rng.uniform(0.4, 0.6, 40)
    features[1] = features[0] + 0.01
    probability[0], probability[1] = 0.9, 0.2
    for pairs in (all_pairs(features, probability), neighbour_pairs(features, probability, neighbours=5)):
        first = rank_by_ratio(pairs)[0]
        assert (pairs.favoured[first], pairs.disfavoured[first]) == (0, 1)
        assert (pairs.gap >= 0).all()


def test_learned_metric_finds_out_what_should_not_matter() -> None:
    rng = np.random.default_rng(0)
    people = synthetic(rng, 400)
    auditors = draw_auditors(rng, people, 5)
    probability = rng.random(400)
    rows = rng.choice(400, size=(60, 8))
    difference, gap, upheld = [], [], []
    for shown in rows:
        pairs = all_pairs(people.features[shown], probability[shown])
        gaps = acceptable_gaps(people.features[shown], auditors)[pairs.favoured, pairs.disfavoured]
        difference.append(pairs.difference)
        gap.append(pairs.gap)
        upheld.append(is_violation(pairs.gap, gaps, alpha=0.0, quorum=0.4).astype(float))
    judged = pairs._replace(
        favoured=np.zeros(60 * 28, dtype=np.int64),
        disfavoured=np.zeros(60 * 28, dtype=np.int64),
        gap=np.concatenate(gap),
        difference=np.concatenate(difference),
    )
    truth = np.concatenate(upheld)
    assert truth.sum() > 20
    metric = learn_metric(judged, truth)
    ordinary, sensitive = metric.weights[people.protected == 0], metric.weights[people.protected > 0]
    assert sensitive.mean() < ordinary.mean()
    hits = truth[rank_by_metric(judged, metric)[:50]].mean()
    assert hits > 10 * truth.mean()
