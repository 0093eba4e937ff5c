"""Boredom and return days: SARDINE step by step, and what boredom does."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from decision.errors import FieldError
from simulators.environments.retention import RetentionEnv, RetentionRules, draw_items

ITEMS = draw_items(np.random.default_rng(0), 200, 10)


def make() -> RetentionEnv:
    return RetentionEnv(ITEMS, 12, RetentionRules(slate=4, episode=20, slope=20.0))


@pytest.mark.parametrize("omega", [1.0, 0.9])
@pytest.mark.parametrize("boredom", ["churn", "topic"])
@pytest.mark.parametrize("fading", [False, True])
def test_steps_equal_those_of_sardine(omega: float, boredom: str, fading: bool) -> None:
    """Slates and clicks are SARDINE's; probabilities, boredom, time-outs and tastes must be the same at every step."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sardine = pytest.importorskip("sardine.simulator", reason="sardine-rec")
    theirs = sardine.Sardine(
        num_items=1000,
        slate_size=10,
        num_topics=10,
        episode_length=60,
        env_alpha=1.0,
        env_propensities=None,
        env_offset=0.65,
        env_slope=10,
        env_omega=omega,
        recent_items_maxlen=10,
        boredom_threshold=5,
        boredom_moving_window=5,
        env_embedds="item_embeddings_focused_small.npy",
        click_model="tdPBM",
        rel_threshold=None,
        diversity_penalty=1.5,
        diversity_threshold=4,
        click_prop=0.85,
        boredom_type="user_car" if boredom == "churn" else "user_tloi",
        rel_penalty=fading,
    )
    observed, info = theirs.reset(seed=3)
    rules = RetentionRules(episode=60, slope=10.0, omega=omega, crowding=4, penalty=1.5, boredom=boredom, fading=fading)
    ours = RetentionEnv(theirs.item_embedd, 1, rules)
    rng = np.random.default_rng(4)
    first = taste_before(theirs, observed, omega)
    ours.begin(first[None])
    ours.advance(observed["slate"][None], info["clicks"][None].astype(bool))
    drawn = theirs._np_random = Recording(theirs.np_random)
    bored = 0
    for _ in range(50):
        liked = np.argsort(-(theirs.item_embedd @ theirs.user_embedd))[:60]
        slate = rng.choice(liked, 10, replace=False) if rng.random() < 0.7 else rng.integers(0, 1000, 10)
        ours_probability = ours.click_probabilities(slate[None])[0]
        observed, _, _, _, info = theirs.step(slate)
        assert ours_probability == pytest.approx(drawn.probabilities, abs=1e-6)
        ours.advance(slate[None], info["clicks"][None].astype(bool))
        assert ours.bored[0].tolist() == theirs.bored.tolist()
        assert ours.timeout[0].tolist() == theirs.bored_timeout.tolist()
        assert ours.current[0] == pytest.approx(theirs.cur_user_embedd, abs=1e-6)
        assert ours.near[0] == pytest.approx(theirs.norm_recent_topics_hist, abs=1e-6)
        bored += int(theirs.bored.any())
    assert bored > 0  # or the test has not seen what it is about


class Recording:
    """Draws SARDINE's clicks and remembers with which probabilities."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng

    def binomial(self, n: int, p: np.ndarray) -> np.ndarray:
        self.probabilities = p
        return self.rng.binomial(n, p)


def taste_before(theirs, observed, omega: float) -> np.ndarray:
    """SARDINE moves the taste in `reset` already; undo it, up to the length that it forgets."""
    if omega == 1.0 or not observed["clicks"].any():
        return theirs.user_embedd.copy()
    mean = theirs.item_embedd[observed["slate"][observed["clicks"].astype(bool)]].mean()
    low, high = 0.0, 10.0
    for _ in range(200):
        length = (low + high) / 2.0
        norm = np.linalg.norm((theirs.user_embedd * length - (1 - omega) * mean) / omega)
        low, high = (length, high) if norm < 1.0 else (low, length)
    return (theirs.user_embedd * length - (1 - omega) * mean) / omega


def test_repeating_a_topic_bores_and_variety_does_not() -> None:
    items = np.eye(10)
    rules = RetentionRules(slate=2, slope=20.0, offset=0.2, patience=1.0)
    taste = np.full((50, 10), 1.0) / np.sqrt(10)
    bored = {}
    for name in ("same", "varied"):
        env = RetentionEnv(items, 50, rules)
        env.reset(seed=1)
        env.begin(taste)
        bored[name] = 0
        for step in range(12):
            topics = [0, 0] if name == "same" else [(2 * step) % 10, (2 * step + 1) % 10]
            env.step(np.tile(topics, (50, 1)))
            bored[name] += int(env.bored.sum())
    assert bored["varied"] == 0
    assert bored["same"] > 100


def test_bored_users_come_back_later() -> None:
    env = make()
    env.reset(seed=0)
    clicks = np.zeros((12, 4), np.bool_)
    env.bored[:] = False
    fresh = env.back(clicks)
    env.bored[:, :2] = True
    assert env.back(clicks) == pytest.approx(fresh / 4)
    assert (env.back(~clicks) > env.back(clicks)).all()


def test_items_are_unit_vectors_of_two_or_three_topics() -> None:
    assert np.linalg.norm(ITEMS, axis=1) == pytest.approx(1.0)
    assert set((ITEMS > 0).sum(axis=1)) == {2, 3}


def test_what_does_not_exist_is_refused() -> None:
    env = make()
    env.reset(seed=0)
    with pytest.raises(FieldError, match="actions"):
        env.step(np.full((12, 4), 200))
    with pytest.raises(FieldError, match="omega"):
        RetentionRules(omega=0.0)
