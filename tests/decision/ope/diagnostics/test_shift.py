"""Tests between two samples keep their error where nothing changed, at any rarity and skew, and see what did."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import binom, hypergeom

from decision.batch import Floats
from decision.ope.diagnostics.shift import BINS, clipped, fall, fewer, more, never_tried

Draws = Callable[[np.random.Generator, int], Floats]
WORLDS: dict[str, Draws] = {
    "common clicks": lambda rng, n: (rng.random(n) < 0.3).astype(np.float64),
    "rare clicks": lambda rng, n: (rng.random(n) < 0.004).astype(np.float64),
    "revenue": lambda rng, n: (rng.random(n) < 0.03) * rng.lognormal(2.0, 1.5, n),
    "rare losses": lambda rng, n: (rng.random(n) < 0.004) * -rng.lognormal(0.0, 1.0, n),
    "stars": lambda rng, n: rng.integers(1, 6, n).astype(np.float64),
}


@pytest.mark.parametrize("world", WORLDS)
def test_the_error_holds_where_nothing_changed(world: str) -> None:
    # With 400 logs, more than 14 rejections at .01 have a probability of 1.4e-5.
    rng, error, runs = np.random.default_rng(5), 0.01, 400
    rejected = 0
    for _ in range(runs):
        n, m = (300, 900) if rng.random() < 0.5 else (900, 300)
        rejected += fall(WORLDS[world](rng, n), WORLDS[world](rng, m), error=error, rng=rng) <= error
    assert rejected <= 14
    assert binom.sf(14, runs, error) < 2e-5


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("shift", [0.0, -7.0])
def test_scale_and_shift_change_no_answer(scale: float, shift: float) -> None:
    rng = np.random.default_rng(8)
    later, before = 0.7 * WORLDS["revenue"](rng, 2_000), WORLDS["revenue"](rng, 2_000)
    expected = fall(later, before, error=0.001, rng=np.random.default_rng(1))
    found = fall(scale * later + shift, scale * before + shift, error=0.001, rng=np.random.default_rng(1))
    assert found == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("world", ["common clicks", "revenue", "stars"])
def test_a_fall_is_seen(world: str) -> None:
    rng = np.random.default_rng(2)
    later, before = WORLDS[world](rng, 6_000), WORLDS[world](rng, 6_000)
    later[rng.random(6_000) < 0.45] = before.min()
    both = clipped(np.concatenate((later, before)))
    assert fall(both[:6_000], both[6_000:], error=0.001, rng=rng) <= 0.001
    assert fall(both[6_000:], both[:6_000], error=0.001, rng=rng) > 0.5


def test_two_values_are_judged_exactly() -> None:
    later, before = np.repeat([0.0, 1.0], [95, 5]), np.repeat([0.0, 1.0], [70, 30])
    expected = hypergeom.cdf(5, 200, 35, 100)
    assert fall(later, before, error=0.001, rng=np.random.default_rng(0)) == pytest.approx(expected, rel=1e-12)
    assert fewer(np.array([5]), np.array([30]), 100, 100)[0] == pytest.approx(expected, rel=1e-12)
    assert more(np.array([30]), np.array([5]), 100, 100)[0] == pytest.approx(expected, rel=1e-9)


def test_permutations_agree_with_the_exact_answer() -> None:
    rng = np.random.default_rng(4)
    three = rng.choice([0.0, 1.0, 1.0 + 1e-9], 900, p=[0.7, 0.2, 0.1])  # as good as two values
    two = np.round(three)
    expected = fall(two[:300], np.minimum(two[300:] + (rng.random(600) < 0.06), 1.0), error=1e-4, rng=rng)
    assert expected > 1e-4
    again = np.minimum(two[300:] + (np.random.default_rng(9).random(600) < 0.06), 1.0)
    exact = fall(two[:300], again, error=1e-4, rng=rng)
    near = fall(three[:300], again, error=1e-4, rng=rng)
    assert near == pytest.approx(exact, abs=5 * np.sqrt(exact / 1e5) + 2e-5)


def test_without_a_spread_nothing_fell() -> None:
    assert fall(np.ones(200), np.ones(300), error=0.001, rng=np.random.default_rng(0)) == 1.0


def test_many_values_keep_the_order_of_their_classes() -> None:
    rng = np.random.default_rng(3)
    later, before = rng.normal(size=4_000) - 0.2, rng.normal(size=4_000)
    assert np.unique(later).size > BINS
    assert fall(later, before, error=0.001, rng=rng) <= 0.001


def test_an_action_is_named_when_a_twentieth_of_its_share_would_have_drawn_it() -> None:
    rng, named = np.random.default_rng(6), 0
    rows, actions = 2_000, 10
    offered = np.full(actions, rows / actions)
    for _ in range(2_000):  # every action has just that share: one of them named once in 1,000 logs
        drawn = rng.poisson(0.05 * offered)
        named += bool(never_tried(offered, drawn, error=0.001, share=0.05).any())
    assert named <= 9  # binomial(2,000, .001): above 9 once in 25,000
    assert never_tried(offered, np.array([0, *[5] * 9]), error=0.001, share=0.05).tolist() == [True] + [False] * 9
    assert not never_tried(offered / 2, np.zeros(actions, np.int64), error=0.001, share=0.05).any()
