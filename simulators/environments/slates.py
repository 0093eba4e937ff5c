"""A world of slates: Plackett-Luce policies over items, clicks that follow position and relevance.

Slot k (1-based) is looked at with probability 1/k and clicked when the item there is relevant; the reward is the number
of clicks. Baseline and candidate draw slot after slot without replacement, in proportion to exp(score) of the items
left. The candidate's scores are the baseline's, disturbed and tilted until its lift is the one asked for.
"""

from __future__ import annotations

import numpy as np

from decision.batch import Floats, Ints

ITEMS, SLOTS = 30, 5


class SlateWorld:
    """One simulated page.

    Attributes:
        steps: H, the slots.
        reward_max: most clicks.
    """

    steps = SLOTS
    reward_max = float(SLOTS)

    def __init__(
        self, rng: np.random.Generator, lift: float, *, disturbance: float = 1.0, sample: int = 20_000
    ) -> None:
        """Draw a page.

        Args:
            rng: draws of the page and of the samples that measure values.
            lift: true relative lift of the candidate.
            disturbance: standard deviation of the difference in scores that has no bearing on clicks.
            sample: slates that measure a value, with common draws.
        """
        self.relevance = rng.beta(2.0, 38.0, ITEMS)
        self.baseline = rng.normal(0.0, 0.7, ITEMS) + 8.0 * self.relevance
        self._looks = 1.0 / np.arange(1, SLOTS + 1)
        self._gumbel = rng.gumbel(size=(sample, ITEMS))
        self._u = rng.random((sample, SLOTS))
        tilt = (self.relevance - self.relevance.mean()) / self.relevance.std()
        disturbed = self.baseline + rng.normal(0.0, disturbance, ITEMS)
        aim = (1.0 + lift) * self._pure(self.baseline)
        low, high = -8.0, 8.0
        for _ in range(30):
            middle = (low + high) / 2.0
            if self._pure(disturbed + middle * tilt) < aim:
                low = middle
            else:
                high = middle
        self.candidate = disturbed + high * tilt

    def value(self, leading: int) -> float:
        """Return the reward expected of `leading` baseline slots and the candidate after them (H: the baseline)."""
        items, _ = self._slates(np.full(self._u.shape[0], leading), self._u)
        return float((self.relevance[items] @ self._looks).mean())

    def draw(self, rng: np.random.Generator, leading: Ints) -> tuple[Floats, Floats]:
        """Return rewards [n] and log ratios [n, H] of candidate over baseline at every slot's item.

        Args:
            rng: draws.
            leading: [n] baseline slots at the head of each slate.
        """
        items, ratios = self._slates(leading, rng.random((leading.size, SLOTS)))
        clicked = rng.random(items.shape) < self.relevance[items] * self._looks
        return clicked.sum(1).astype(np.float64), ratios

    def _pure(self, scores: Floats) -> float:
        # Perturbing every score by a Gumbel number and sorting draws from Plackett-Luce.
        items = np.argsort(-(scores + self._gumbel), axis=1)[:, :SLOTS]
        return float((self.relevance[items] @ self._looks).mean())

    def _slates(self, leading: Ints, u: Floats) -> tuple[Ints, Floats]:
        n = leading.size
        rows = np.arange(n)
        left = np.ones((n, ITEMS))
        items = np.empty((n, SLOTS), dtype=np.int64)
        ratios = np.empty((n, SLOTS))
        odds = np.exp(np.stack([self.baseline, self.candidate]))
        for slot in range(SLOTS):
            by_baseline, by_candidate = left * odds[0], left * odds[1]
            drawn = np.where((slot < leading)[:, None], by_baseline, by_candidate).cumsum(1)
            item = np.minimum((u[:, slot, None] * drawn[:, -1:] >= drawn).sum(1), ITEMS - 1)
            base = by_baseline[rows, item] / by_baseline.sum(1)
            ratios[:, slot] = np.log(by_candidate[rows, item] / by_candidate.sum(1) / base)
            items[:, slot] = item
            left[rows, item] = 0.0
        return items, ratios
