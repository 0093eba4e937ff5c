"""Other ways to learn under panels: the greedy default, a smooth policy, and follow-the-perturbed-leader.

Each plays the same stage as `fairness.learn` and is judged by the same panels; the perturbed leader moves its
multiplier to the same target, so that error stands beside error at like violations.
"""

from __future__ import annotations

import numpy as np

from decision.batch import Floats
from decision.fairness.learners import ftpl, smooth
from decision.fairness.learners.losses import doubly_robust_costs, label_losses, report_losses
from decision.fairness.learners.multiplier import DualRule, after
from decision.fairness.panel import threshold
from simulators.environments.auditors import Stage

EPSILON = 0.1
REFIT = 200
"""Rounds between two fits of the smooth policy."""

SMOOTH_COST = 32.0
"""The smooth policy's multiplier; every report of the past is charged again at each fit, so it does not move."""

DRAWS, CAP, SEPARATOR = 25, 50, 24
SCALE = 2.0
"""Of the perturbation, times the root of the rounds so far; chosen on seeds 10 to 12."""

Played = tuple[Floats, Floats, int, float]
"""[T, k] probabilities, [T] violations, reports charged, multiplier at the end."""


def epsilon_greedy(scene: Stage, rng: np.random.Generator, *, floor: float, alpha: float, quorum: float) -> Played:
    """Play the hypothesis of least importance-weighted loss, and a tenth of the time at random; blind to fairness."""
    rounds, people, count = scene.predictions.shape
    limits = threshold(scene.acceptable, alpha=alpha, quorum=quorum)
    cumulative, pis = np.zeros(count), np.empty((rounds, people))
    for t in range(rounds):
        best = scene.predictions[t][:, int(cumulative.argmin())]
        pi = floor + (1.0 - floor) * ((1.0 - EPSILON) * best + EPSILON / 2.0)
        approved = (rng.random(people) < pi).astype(np.float64)
        cumulative += label_losses(scene.predictions[t], approved, scene.labels[t], pi)
        pis[t] = pi
    return pis, _violations(pis, limits), 0, 0.0


def perturbed_leader(scene: Stage, rng: np.random.Generator, *, floor: float, alpha: float, quorum: float) -> Played:
    """Play context-semi-bandit FTPL with geometric resampling and the dual multiplier."""
    rounds, people, count = scene.predictions.shape
    limits = threshold(scene.acceptable, alpha=alpha, quorum=quorum)
    separator = scene.predictions.reshape(-1, count)[:SEPARATOR].T
    cumulative, pis = np.zeros(count), np.empty((rounds, people))
    cost, rule, reports = 8.0, DualRule(), 0
    for t in range(rounds):
        predictions, scale = scene.predictions[t], SCALE * float(np.sqrt(t + 1.0))
        drawn = ftpl.leaders(cumulative, separator, scale=scale, draws=DRAWS, rng=rng)
        pi = ftpl.empirical(predictions, drawn, floor=floor)
        approved = (rng.random(people) < pi).astype(np.float64)
        fresh = ftpl.leaders(cumulative, separator, scale=scale, draws=CAP, rng=rng)
        inverse = ftpl.resampled(predictions, fresh, approved, floor=floor, rng=rng)
        estimated = 1.0 / np.where(inverse > 0, inverse, 1.0)
        cumulative += label_losses(predictions, approved, scene.labels[t], estimated)
        pair = _worst(pi, limits[t])
        if pair is not None:
            cumulative += report_losses(predictions[pair[0]], predictions[pair[1]], cost)
            reports += 1
        cost = after(cost, float(pair is not None), rule)
        pis[t] = pi
    return pis, _violations(pis, limits), reports, cost


def smooth_policy(scene: Stage, rng: np.random.Generator, *, floor: float, alpha: float, quorum: float) -> Played:
    """Play one logistic policy on doubly robust costs and reports, fitted again every 200 rounds."""
    rounds, people, d = scene.features.shape
    limits = threshold(scene.acceptable, alpha=alpha, quorum=quorum)
    flat = scene.features.reshape(-1, d)
    weights, pis = np.zeros(d + 1), np.empty((rounds, people))
    approvals = np.zeros((rounds, people))
    favoured: list[int] = []
    disfavoured: list[int] = []
    for t in range(rounds):
        if t and t % REFIT == 0:
            seen = t * people
            costs = _costs(flat[:seen], approvals[:t].ravel(), scene.labels[:t].ravel(), pis[:t].ravel())
            pairs = np.array(favoured, dtype=np.int64), np.array(disfavoured, dtype=np.int64)
            weights = smooth.fit(weights, flat[:seen], costs, *pairs, cost=SMOOTH_COST, alpha=alpha)
        pi = floor + (1.0 - floor) * smooth.probability(weights, scene.features[t])
        approvals[t] = rng.random(people) < pi
        pair = _worst(pi, limits[t])
        if pair is not None:
            favoured.append(t * people + pair[0])
            disfavoured.append(t * people + pair[1])
        pis[t] = pi
    return pis, _violations(pis, limits), len(favoured), SMOOTH_COST


def _costs(features: Floats, approved: Floats, labels: Floats, pi: Floats) -> Floats:
    from sklearn.linear_model import LogisticRegression

    rows = approved > 0
    if np.unique(labels[rows]).size < 2:
        return doubly_robust_costs(approved, labels, pi, np.full(pi.size, 0.5))
    model = LogisticRegression(max_iter=200).fit(features[rows], labels[rows], sample_weight=1.0 / pi[rows])
    return doubly_robust_costs(approved, labels, pi, model.predict_proba(features)[:, 1])


def _worst(pi: Floats, limit: Floats) -> tuple[int, int] | None:
    excess = pi[:, None] - pi[None, :] - limit
    worst = int(excess.argmax())
    return divmod(worst, pi.size) if excess.flat[worst] > 0 else None


def _violations(pis: Floats, limits: Floats) -> Floats:
    gaps = pis[:, :, None] - pis[:, None, :]
    return np.asarray((gaps > limits).any((1, 2)), dtype=np.float64)
