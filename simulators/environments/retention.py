"""Retention: topics that bore after too many clicks, and users who come back later the more bored they are.

The boredom is that of SARDINE (Deffayet et al. 2024, ACM TORS; sardine-rec, MIT), for many users at once; what a step
does is checked against it. Ours is the return day: a visit is followed by the next after a geometric number of days,

    P(back on any day) = back away^bored (1/2 + clicks / (2 slate)),

with `bored` the number of topics the user is bored of, so that clicks today are bought with visits later.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from decision.batch import Floats
from decision.errors import FieldError
from simulators.environments.lts.env import MAX_USERS, Counts, Singles

Bools = NDArray[np.bool_]
EMPTY = -1
_SPARSE = (3, 5)
"""Least and greatest number of topics a user likes."""


@dataclass(frozen=True, slots=True)
class RetentionRules:
    """How clicks and boredom come about; names and defaults are those of SARDINE's ``SlateTopK-Bored``.

    Attributes:
        slate: items shown at once.
        episode: visits.
        offset: relevance at which an item is as likely attractive as not.
        slope: of the logistic curve around it.
        omega: share of the taste that a click leaves as it was, in (0, 1].
        remembered: clicks that count towards boredom, the latest.
        threshold: clicks on one topic within the window that bore.
        window: visits, both of the count and of the boredom that follows.
        patience: attractiveness of a position is this to its power, in (0, 1].
        crowding: items of one topic in a slate from which on the slate is less attractive.
        penalty: by which it is then divided, 1 or more.
        boredom: ``topic`` loses interest in the topic, ``churn`` in everything.
        fading: each boring topic halves the relevance of everything.
        back: probability of coming back on a day when all was clicked and nothing bores, in (0, 1].
        away: by which each boring topic multiplies it, in (0, 1].
    """

    slate: int = 10
    episode: int = 100
    offset: float = 0.65
    slope: float = 100.0
    omega: float = 1.0
    remembered: int = 10
    threshold: int = 5
    window: int = 5
    patience: float = 0.85
    crowding: int = 4
    penalty: float = 1.0
    boredom: Literal["topic", "churn"] = "churn"
    fading: bool = False
    back: float = 0.8
    away: float = 0.5

    def __post_init__(self) -> None:
        for name in ("slate", "episode", "remembered", "threshold", "window", "crowding"):
            if getattr(self, name) < 1:
                raise FieldError(f"rules.{name}", wanted="1 or more", got=getattr(self, name))
        for name in ("omega", "patience", "back", "away"):
            if not 0.0 < getattr(self, name) <= 1.0:
                raise FieldError(f"rules.{name}", wanted="a number in (0, 1]", got=getattr(self, name))
        if self.penalty < 1.0:
            raise FieldError("rules.penalty", wanted="1 or more", got=self.penalty)


def draw_items(rng: np.random.Generator, items: int, topics: int) -> Floats:
    """Return unit vectors [items, topics] with two or three topics each."""
    if not 1 <= items <= MAX_USERS or topics < 3:
        raise FieldError("items", wanted=f"1 to {MAX_USERS:,} items, 3 topics or more", got=(items, topics))
    vectors = rng.random((items, topics))
    rank = rng.random((items, topics)).argsort(axis=1).argsort(axis=1)
    vectors *= rank < rng.integers(2, 4, items)[:, None]
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


class RetentionEnv(VectorEnv):
    """n users who visit, one slate per visit.

    Observation: how near each topic is to boring, in [0, 1]; share of the last slate clicked; days since the visit
    before, cut to 100. Reward: clicks. ``info`` holds ``clicks`` [n, slate] and ``days`` [n] until the next visit.

    Attributes:
        taste: [n, topics] interests before boredom.
        current: [n, topics] interests that the next slate meets.
        bored: [n, topics].
        timeout: [n, topics] visits until boredom ends; the window where there is none.
    """

    metadata = {"autoreset_mode": AutoresetMode.DISABLED, "render_modes": []}  # noqa: RUF012 as gymnasium declares it

    def __init__(self, items: Floats, users: int, rules: RetentionRules | None = None) -> None:
        """Set up `users` users before `items` [items, topics].

        Raises:
            FieldError: no users, too many, or items without topics.
        """
        if not 1 <= users <= MAX_USERS:
            raise FieldError("users", wanted=f"1 to {MAX_USERS:,} users", got=users)
        if items.ndim != 2 or not np.isfinite(items).all():
            raise FieldError("items", wanted="finite vectors [items, topics]", got=items.shape)
        self.items, self.rules, self.num_envs = items, rules or RetentionRules(), users
        self.topic = items.argmax(axis=1)
        self._largest = float(np.linalg.norm(items, axis=1).max())
        topics, slate = items.shape[1], self.rules.slate
        self.positions = self.rules.patience ** np.arange(slate)
        high = np.append(np.ones(topics + 1), 100.0).astype(np.float32)
        self.single_observation_space = spaces.Box(np.zeros(topics + 2, np.float32), high, dtype=np.float32)
        self.single_action_space = spaces.MultiDiscrete(np.full(slate, len(items)))
        self.observation_space = batch_space(self.single_observation_space, users)
        self.action_space = batch_space(self.single_action_space, users)
        self.begin(np.zeros((users, topics)))

    def begin(self, taste: Floats) -> None:
        """Start with users of `taste` [n, topics] who have clicked nothing."""
        n, topics = taste.shape
        self.taste, self.current = taste.copy(), taste.copy()
        self.bored = np.zeros((n, topics), np.bool_)
        self.timeout = np.full((n, topics), self.rules.window)
        self.near = np.zeros((n, topics))
        self._clicked_topic = np.full((n, self.rules.remembered), EMPTY)
        self._clicked_at = np.full((n, self.rules.remembered), EMPTY)
        self.time = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Singles, dict[str, Any]]:
        """Draw new users and show them a random slate; return observations and what was clicked."""
        super().reset(seed=seed)
        rng, n, topics = self.np_random, self.num_envs, self.items.shape[1]
        liked = rng.integers(_SPARSE[0], _SPARSE[1] + 1, n)
        rank = rng.random((n, topics)).argsort(axis=1).argsort(axis=1)
        taste = rng.random((n, topics)) * (rank < np.minimum(liked, topics)[:, None])
        self.begin(taste / np.linalg.norm(taste, axis=1, keepdims=True))
        slate = rng.integers(0, len(self.items), (n, self.rules.slate))
        clicks = rng.random(slate.shape) < self.click_probabilities(slate)
        self.advance(slate, clicks)
        return self._observed(clicks, np.zeros(n)), {"clicks": clicks}

    def step(self, actions: Any) -> tuple[Singles, Singles, Bools, Bools, dict[str, Any]]:
        """Show everyone a slate [n, slate] of item numbers.

        Raises:
            FieldError: actions of another shape or items that do not exist.
        """
        slate = np.asarray(actions)
        n = self.num_envs
        if slate.shape != (n, self.rules.slate) or slate.dtype.kind not in "iu":
            raise FieldError("actions", wanted=f"items [{n}, {self.rules.slate}]", got=slate.shape)
        if slate.min() < 0 or slate.max() >= len(self.items):
            raise FieldError("actions", wanted=f"items in [0, {len(self.items)})", got=slate)
        clicks = self.np_random.random(slate.shape) < self.click_probabilities(slate)
        self.advance(slate, clicks)
        reward = clicks.sum(axis=1).astype(np.float32)
        days = self.np_random.geometric(self.back(clicks)).astype(np.float32)
        over = np.full(n, self.time > self.rules.episode)
        return self._observed(clicks, days), reward, np.zeros(n, np.bool_), over, {"clicks": clicks, "days": days}

    def click_probabilities(self, slate: Counts) -> Floats:
        """Return [n, slate] the probability of a click on each shown item."""
        rules = self.rules
        scores = np.einsum("nsk,nk->ns", self.items[slate], self.current) / self._largest
        relevance = 1.0 / (1.0 + np.exp(-(scores - rules.offset) * rules.slope))
        if rules.fading and self.time > 0:
            relevance *= 0.5 ** self.bored.sum(axis=1, keepdims=True)
        shown = self.topic[slate]
        crowd = (shown[:, :, None] == shown[:, None, :]).sum(axis=2).max(axis=1)
        relevance /= np.where(crowd >= rules.crowding, rules.penalty, 1.0)[:, None]
        return relevance * self.positions

    def advance(self, slate: Counts, clicks: Bools) -> None:
        """Let `clicks` [n, slate] on `slate` [n, slate] have their effect."""
        rules, topics = self.rules, self.items.shape[1]
        for position in range(rules.slate):
            rows = np.flatnonzero(clicks[:, position])
            for remembered, new in (
                (self._clicked_topic, self.topic[slate[rows, position]]),
                (self._clicked_at, np.full(len(rows), self.time)),
            ):
                remembered[rows] = np.roll(remembered[rows], -1, axis=1)
                remembered[rows, -1] = new
        self.time += 1
        np.putmask(self._clicked_topic, self._clicked_at < self.time - rules.window, EMPTY)
        self.timeout -= self.bored
        self.bored = self.bored & (self.timeout != 0)
        self.timeout[~self.bored] = rules.window
        counts = (self._clicked_topic[:, :, None] == np.arange(topics)).sum(axis=1)
        self.bored = self.bored | (counts >= rules.threshold)
        self.near = np.clip(counts / rules.threshold, 0.0, 1.0)
        if rules.omega < 1.0:
            # SARDINE moves a taste towards the mean NUMBER of the clicked vectors, not their mean vector; so do we.
            sums = (self.items[slate].sum(axis=2) * clicks).sum(axis=1)
            mean = sums / (np.maximum(clicks.sum(axis=1), 1) * topics)
            moved = rules.omega * self.taste + (1.0 - rules.omega) * mean[:, None]
            moved /= np.linalg.norm(moved, axis=1, keepdims=True)
            self.taste = np.where(clicks.any(axis=1, keepdims=True), moved, self.taste)
        dulled = self.bored if rules.boredom == "topic" else self.bored.any(axis=1, keepdims=True)
        self.current = np.where(dulled, 0.0, self.taste)

    def back(self, clicks: Bools) -> Floats:
        """Return [n] the probability of coming back on any day after `clicks` [n, slate]."""
        return self.rules.back * self.rules.away ** self.bored.sum(axis=1) * (0.5 + clicks.mean(axis=1) / 2.0)

    def take(self, rows: NDArray[np.int64], seed: int) -> RetentionEnv:
        """Return copies of the users at `rows` as they are now, who go on by a chance of their own."""
        other = RetentionEnv(self.items, len(rows), self.rules)
        for name in ("taste", "current", "bored", "timeout", "near", "_clicked_topic", "_clicked_at"):
            setattr(other, name, getattr(self, name)[rows])
        other.time, other.np_random = self.time, np.random.default_rng(seed)
        return other

    def _observed(self, clicks: Bools, days: Singles | Floats) -> Singles:
        last = np.stack([clicks.mean(axis=1), np.minimum(days, 100.0)], axis=1)
        return np.concatenate([self.near, last], axis=1).astype(np.float32)
