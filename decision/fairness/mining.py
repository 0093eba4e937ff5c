"""Mining: which pairs are worth an auditor's time.

Pairs of near neighbours are ranked by ``gap / (distance + delta)``: a large difference in treatment over a small
difference in person. With judgements at hand a metric is learned, for mining only and never as truth: a logistic model
of "upheld" on the gap and a weighted distance with non-negative weights.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import numpy as np
from scipy.optimize import minimize

from decision.batch import Floats, Ints


class Pairs(NamedTuple):
    """Ordered pairs, the better treated person first.

    Attributes:
        favoured: [p] positions.
        disfavoured: [p] positions.
        gap: [p] difference of their probabilities, >= 0.
        difference: [p, d] absolute differences of their features.
    """

    favoured: Ints
    disfavoured: Ints
    gap: Floats
    difference: Floats


def all_pairs(features: Floats, probability: Floats) -> Pairs:
    """Return every unordered pair once, the better treated first; for windows of up to some hundreds."""
    i, j = np.triu_indices(probability.size, 1)
    return _ordered(features, probability, i.astype(np.int64), j.astype(np.int64))


def neighbour_pairs(features: Floats, probability: Floats, *, neighbours: int = 20) -> Pairs:
    """Return the pairs of each person with their nearest others, each pair once; for large windows.

    Args:
        features: [n, d] allowed features, scaled to be comparable.
        probability: [n] probability of the treatment that is compared.
        neighbours: nearest others per person.
    """
    i, j = near(features, neighbours)
    return _ordered(features, probability, i, j)


def near(features: Floats, neighbours: int) -> tuple[Ints, Ints]:
    """Return the positions of each person and their `neighbours` nearest others, each unordered pair once."""
    from scipy.spatial import KDTree

    if features.shape[0] < 2:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    tree = KDTree(features)
    _, found = cast("Any", tree).query(features, k=min(neighbours + 1, features.shape[0]))
    i = np.repeat(np.arange(features.shape[0]), found.shape[1])
    j = found.ravel()
    low, high = np.minimum(i, j), np.maximum(i, j)
    unique = np.unique(np.stack([low, high], axis=1)[low != high], axis=0)
    return unique[:, 0].astype(np.int64), unique[:, 1].astype(np.int64)


def action_pairs(features: Floats, probability: Floats, i: Ints, j: Ints) -> tuple[Pairs, Ints]:
    """Return the pairs (i, j), each on the action on which its two people differ most, and that action.

    A report is then on (person, action): the same lemma holds with the gap ``pi(a | x_i) - pi(a | x_j)``, and the cost
    is charged on a for x_i and on the other actions for x_j.

    Args:
        features: [n, d].
        probability: [n, A] of each action, or its exposure; NaN where it was not offered.
        i: [p] positions.
        j: [p] positions of the others; pairs without a shared action are left out.

    Returns:
        The pairs, and [p] column of the action of each.
    """
    difference = probability[i] - probability[j]
    size = np.where(np.isnan(difference), -1.0, np.abs(difference))
    action = size.argmax(1) if size.shape[1] else np.zeros(i.size, dtype=np.int64)
    shared = size[np.arange(i.size), action] >= 0 if size.shape[1] else np.zeros(i.size, dtype=bool)
    i, j, action = i[shared], j[shared], action[shared].astype(np.int64)
    ahead = probability[i, action] >= probability[j, action]
    favoured, disfavoured = np.where(ahead, i, j), np.where(ahead, j, i)
    gap = probability[favoured, action] - probability[disfavoured, action]
    return Pairs(favoured, disfavoured, gap, np.abs(features[favoured] - features[disfavoured])), action


def _ordered(features: Floats, probability: Floats, i: Ints, j: Ints) -> Pairs:
    swap = probability[j] > probability[i]
    favoured, disfavoured = np.where(swap, j, i), np.where(swap, i, j)
    gap = probability[favoured] - probability[disfavoured]
    return Pairs(favoured, disfavoured, gap, np.abs(features[favoured] - features[disfavoured]))


class Metric(NamedTuple):
    """A learned ranking of pairs.

    Attributes:
        weights: [d] non-negative weights of squared feature differences; small where a feature should not matter.
        slope: weight of the gap, >= 0.
        intercept: intercept of the logit.
    """

    weights: Floats
    slope: float
    intercept: float


def rank_by_ratio(pairs: Pairs, *, delta: float = 0.1) -> Ints:
    """Return the pairs' order, best first, by gap over Euclidean distance."""
    distance = np.sqrt((pairs.difference**2).mean(1))
    return np.argsort(-pairs.gap / (distance + delta), kind="stable")


def rank_by_metric(pairs: Pairs, metric: Metric) -> Ints:
    """Return the pairs' order, best first, by the learned probability of being upheld."""
    return np.argsort(-_logit(pairs, metric), kind="stable")


def learn_metric(pairs: Pairs, upheld: Floats, *, penalty: float = 1e-3) -> Metric:
    """Return the metric fitted to judged pairs.

    Args:
        pairs: the judged pairs.
        upheld: [p] share of the panel that saw a violation, in [0, 1].
        penalty: ridge on the weights.
    """
    d = pairs.difference.shape[1]
    squared = pairs.difference**2 / d
    # Upheld pairs are rare: each class carries half of the weight, which moves the intercept only.
    positive = max(float(upheld.sum()), 1.0)
    importance = upheld / positive + (1.0 - upheld) / max(upheld.size - positive, 1.0)

    def objective(theta: Floats) -> tuple[float, Floats]:
        weights, slope, intercept = theta[:d], theta[d], theta[d + 1]
        inside = squared @ weights + 1e-6
        distance = np.sqrt(inside)
        logit = slope * pairs.gap - distance + intercept
        loss = np.logaddexp(0.0, logit) - upheld * logit
        residual = importance * (1.0 / (1.0 + np.exp(-np.clip(logit, -500, 500))) - upheld)
        gradient = np.empty_like(theta)
        gradient[:d] = -(squared / (2.0 * distance[:, None])).T @ residual + 2.0 * penalty * weights / d
        gradient[d] = residual @ pairs.gap
        gradient[d + 1] = residual.sum()
        return float(importance @ loss + penalty * (weights**2).sum() / d), gradient

    start = np.concatenate([np.full(d, 10.0), [10.0, 0.0]])
    bounds = [(0.0, None)] * (d + 1) + [(None, None)]
    fit = cast("Any", minimize(objective, start, jac=True, bounds=bounds, method="L-BFGS-B"))
    theta = np.asarray(fit.x, dtype=np.float64)
    return Metric(theta[:d], float(theta[d]), float(theta[d + 1]))


def _logit(pairs: Pairs, metric: Metric) -> Floats:
    d = pairs.difference.shape[1]
    return metric.slope * pairs.gap - np.sqrt(pairs.difference**2 @ metric.weights / d + 1e-6) + metric.intercept
