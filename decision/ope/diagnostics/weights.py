"""What importance weights say about a log before any estimate is read: how much of it counts, and who carries it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from decision.batch import Floats, Interactions
from decision.ope.weights import effective_sample_size

_BINS_PER_DECADE = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnostics:
    """What the importance weights say about the log's support for the policy.

    Attributes:
        rows: decisions.
        mean_weight: 1 up to chance where the log supports the policy.
        mean_weight_error: its standard error.
        ess: effective sample size of the weights.
        ess_share: the same as a share of the rows.
        largest_weight: of one row.
        top_share: share of all weight that the top 1% of the rows carry.
        unused: share of the rows with weight 0: the policy would not have done what was done.
        smallest_propensity: of a drawn action.
        mean_inverse: mean of 1/p; equals `mean_actions` up to chance in a correct log with full support.
        mean_actions: mean number of actions offered.
        histogram: [(lower edge, upper edge, rows)] of the positive weights, four bins per decade.
    """

    rows: int
    mean_weight: float
    mean_weight_error: float
    ess: float
    ess_share: float
    largest_weight: float
    top_share: float
    unused: float
    smallest_propensity: float
    mean_inverse: float
    mean_actions: float
    histogram: list[tuple[float, float, int]]


def diagnostics(interactions: Interactions, weights: Floats) -> Diagnostics:
    """Return what [n] importance weights, n >= 1, say about the log's support.

    Args:
        interactions: the log.
        weights: [n], see `decision.ope.weights.weights_of`.
    """
    n = len(weights)
    total = float(weights.sum())
    top = np.sort(weights)[-max(1, n // 100) :]
    ess = effective_sample_size(weights)
    return Diagnostics(
        rows=n,
        mean_weight=total / n,
        mean_weight_error=float(weights.std(ddof=1) / np.sqrt(n)) if n > 1 else float("inf"),
        ess=ess,
        ess_share=ess / n,
        largest_weight=float(weights.max()),
        top_share=float(top.sum()) / total if total > 0 else 0.0,
        unused=float(np.mean(weights == 0)),
        smallest_propensity=float(interactions.propensity.min()),
        mean_inverse=float(np.mean(1.0 / interactions.propensity)),
        mean_actions=float(np.mean(np.diff(interactions.batch.offsets))),
        histogram=_histogram(weights[weights > 0]),
    )


def _histogram(weights: Floats) -> list[tuple[float, float, int]]:
    if not len(weights):
        return []
    bins = np.floor(np.log10(weights) * _BINS_PER_DECADE).astype(np.int64)
    counts = np.bincount(bins - bins.min())
    edges = 10.0 ** (np.arange(bins.min(), bins.max() + 2) / _BINS_PER_DECADE)
    return [(float(edges[i]), float(edges[i + 1]), int(count)) for i, count in enumerate(counts)]
