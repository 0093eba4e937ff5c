"""Sigma: how far rewards lie from what an oracle predicts, the unit in which exploration measures gaps.

    sigma^2 = (sum w (r - f(x, a))^2 + its largest term once more) / sum w

Inverse gap weighting earns its guarantee with gamma = sqrt(K n / d) / sigma, where d sigma^2 / n is the oracle's
squared error on n rows (Foster and Rakhlin 2020, Theorem 1; Simchi-Levi and Xu 2022, section 3.2): rewards that are
noisier, or stated in larger numbers, need larger gaps to tell actions apart. The largest error counts twice, so
that few rows with fewer rewards than are to come do not make sigma too small.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from decision.batch import Batch, Floats, Interactions, Ints, take_rows
from decision.columns import FeatureRows, Texts, joined

MOST_ROWS = 16_384
"""Rows that are looked at: of rewards of one in a thousand there are a dozen among them."""
_LEAST = 1e-6  # smallest sigma as a share of the range of rewards: where there is no noise there still is a unit
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # its multiples modulo 2^64 lie evenly (Knuth 1973, section 6.4)


class _Part(NamedTuple):
    """[r] places by which rows are thinned, contexts, drawn actions and their ids, rewards and weights."""

    place: NDArray[np.uint64]
    contexts: Sequence[dict[str, float]]
    chosen: Sequence[dict[str, float]]
    ids: Sequence[str]
    reward: Floats
    weight: Floats

    def at(self, rows: Ints) -> _Part:
        contexts, chosen = take_rows(self.contexts, rows), take_rows(self.chosen, rows)
        ids = [str(self.ids[row]) for row in rows.tolist()]
        return _Part(self.place[rows], contexts, chosen, ids, self.reward[rows], self.weight[rows])


class Residuals:
    """Drawn actions and their rewards, of rows that lie evenly over a training of any length."""

    def __init__(self) -> None:
        self._seen = 0
        self._limit = np.uint64(2**64 - 1)
        self._parts: list[_Part] = []

    def add(self, interactions: Interactions, weight: Floats) -> None:
        """Add n rows.

        Args:
            interactions: the rows.
            weight: [n] their training weights; rows without one are passed over.
        """
        place = np.arange(self._seen, self._seen + len(interactions), dtype=np.uint64) * _GOLDEN
        self._seen += len(interactions)
        kept = sum(part.reward.size for part in self._parts)
        while kept + np.count_nonzero((weight > 0) & (place <= self._limit)) > MOST_ROWS:
            self._limit //= np.uint64(2)
            self._parts = [part.at(np.flatnonzero(part.place <= self._limit)) for part in self._parts]
            kept = sum(part.reward.size for part in self._parts)
        rows = np.flatnonzero((weight > 0) & (place <= self._limit))
        if not rows.size:
            return
        batch, chosen = interactions.batch, interactions.chosen[rows]
        self._parts.append(
            _Part(
                place[rows],
                FeatureRows.of(take_rows(batch.contexts, rows)).interned(),  # holds nothing of the other rows
                FeatureRows.of(take_rows(batch.actions, chosen)).interned(),
                [str(batch.action_ids[flat]) for flat in chosen.tolist()],
                interactions.reward[rows],
                weight[rows],
            )
        )

    def sigma(self, predict: Callable[[Batch], Floats], *, low: float, high: float) -> float:
        """Return the deviation of rewards from what is predicted, in reward units, above 0.

        Args:
            predict: a batch -> [m] expected rewards.
            low: smallest reward.
            high: largest; `high` less `low` is the answer where rewards do not differ: nothing is known of noise yet.
        """
        if not self._parts:
            return high - low
        batch = Batch(
            joined([part.contexts for part in self._parts]),
            joined([part.chosen for part in self._parts]),
            Texts.of([name for part in self._parts for name in part.ids]),
            np.arange(sum(part.reward.size for part in self._parts) + 1, dtype=np.int64),
        )
        reward = np.concatenate([part.reward for part in self._parts])
        weight = np.concatenate([part.weight for part in self._parts])
        return sigma_of(reward, predict(batch), weight, low=low, high=high)


def sigma_of(reward: Floats, predicted: Floats, weight: Floats, *, low: float, high: float) -> float:
    """Return sigma, in reward units, above 0.

    Args:
        reward: [n] of the drawn actions, n >= 1.
        predicted: [n] what was expected of them.
        weight: [n] how much each row counts, above 0.
        low: smallest reward.
        high: largest; `high` less `low` is the answer where rewards do not differ: nothing is known of noise yet.
    """
    spread = float(reward.max() - reward.min())
    if spread == 0.0:
        return high - low
    error = ((reward - predicted) / spread) ** 2  # of the rewards' own range: no square overflows
    worst = int(error.argmax())
    mean = (float(np.sum(weight * error)) + float(weight[worst] * error[worst])) / float(weight.sum())
    return spread * max(float(np.sqrt(mean)), _LEAST)
