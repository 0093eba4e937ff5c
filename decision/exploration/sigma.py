"""Sigma: how far rewards lie from what an oracle predicts, the unit in which exploration measures gaps.

    sigma^2 = V S,      V = (sum w (r - m)^2 + its largest term once more) / sum w
                        S = (sum_u w (r - f(x, a))^2 + d^2) / (sum_u w (r - m)^2 + d^2)

V is the variance of rewards about their mean m in the rows that the oracle learned from. S is the share of it that the
oracle leaves unexplained, told from rows u that it has not seen: on its own rows, an oracle with many weights looks
better than it is, and a rule that believed it would be too greedy while the log is small. V needs no such care, and so
uses all rows: of rewards of one in a thousand the unseen rows hold few, but both sums of S hold the same few.

Inverse gap weighting earns its guarantee with gamma = sqrt(K n / d) / sigma, where d sigma^2 / n is the oracle's
squared error on n rows (Foster and Rakhlin 2020, Theorem 1; Simchi-Levi and Xu 2022, section 3.2): rewards that are
noisier, or stated in larger numbers, need larger gaps to tell actions apart. The largest deviation counts once more, in
V for the rewards that few rows have not shown yet, and as a row of S, d^2, that no oracle explains: without any unseen
row S is 1.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from decision.batch import Batch, Floats, Interactions, take_rows
from decision.columns import Texts

MOST_ROWS = 16_384
"""Unseen rows that are looked at, the newest: of rewards of one in a thousand there are a dozen among them."""
_LEAST = 1e-6  # smallest sigma as a share of the rewards' spread: where there is no noise there still is a unit


class Spread:
    """How the rewards that are learned from lie about their mean: sums, row by row or in chunks.

    Inside, rewards are shares of their range, so that no square overflows.
    """

    def __init__(self, low: float, high: float) -> None:
        """Take the range of rewards, low < high."""
        self._low, self._span = low, high - low
        self._weight = self._mean = self._squares = 0.0
        self._ends = {"least": (np.inf, 0.0), "most": (-np.inf, 0.0)}  # a reward, and the largest weight it came with

    def add(self, reward: Floats, weight: Floats) -> None:
        """Add n rows.

        Args:
            reward: [n] of the drawn actions.
            weight: [n] how much each row counts, 0 or more; rows without one are passed over.
        """
        counts = weight > 0
        if not counts.any():
            return
        share, w = (reward[counts] - self._low) / self._span, weight[counts]
        total, mean = float(w.sum()), float(w @ share / w.sum())
        apart, both = mean - self._mean, self._weight + total
        # Chan, Golub and LeVeque 1983: sums of squares about the common mean
        self._squares += float(w @ (share - mean) ** 2) + apart**2 * self._weight * total / both
        self._mean += apart * total / both
        self._weight = both
        for name, end in (("least", float(share.min())), ("most", float(share.max()))):
            seen, heaviest = self._ends[name]
            beyond = end < seen if name == "least" else end > seen
            if beyond or end == seen:
                here = float(w[share == end].max())
                self._ends[name] = (end, here if beyond else max(here, heaviest))

    def sigma(self, reward: Floats, predicted: Floats, weight: Floats) -> float:
        """Return the deviation of rewards from what is predicted, in reward units, above 0.

        The span of the range is the answer where rewards do not differ: nothing is known of noise yet.

        Args:
            reward: [u] of rows that the oracle has not seen; there may be none.
            predicted: [u] what it expects of the actions that were drawn there.
            weight: [u] how much each row counts, 0 or more.
        """
        (least, _), (most, _) = self._ends.values()
        if not least < most:
            return self._span
        largest, heaviest = max(((end - self._mean) ** 2, w) for end, w in self._ends.values())
        variance = (self._squares + heaviest * largest) / self._weight
        share, expected = (reward - self._low) / self._span, (predicted - self._low) / self._span
        left = float(weight @ (share - expected) ** 2) + largest
        unexplained = left / (float(weight @ (share - self._mean) ** 2) + largest)
        return self._span * max(float(np.sqrt(variance * unexplained)), _LEAST * (most - least))


def predicted_of_drawn(predict: Callable[[Batch], Floats], interactions: Interactions) -> Floats:
    """Return [n] what `predict`, batch -> [m] expected rewards, says of the drawn actions; it is asked of no other."""
    batch, chosen = interactions.batch, interactions.chosen
    ids = batch.action_ids
    drawn = ids.take(chosen) if isinstance(ids, Texts) else [str(ids[flat]) for flat in chosen.tolist()]
    each = np.arange(len(interactions) + 1, dtype=np.int64)
    return predict(Batch(batch.contexts, take_rows(batch.actions, chosen), drawn, each))
