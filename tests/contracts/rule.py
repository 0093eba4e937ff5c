"""What every exploration rule keeps. Each check takes a `Rule`; rules that ask members get three that differ."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from msgspec.structs import replace

from decision.batch import Floats, Ints
from decision.exploration import mix
from decision.exploration.rule import Exploration, Rule

GIVEN = Exploration(gamma=30.0, epsilon=0.2, inverse_temperature=3.0, rows=500.0, low=-5.0, high=5.0)


def cases() -> list[tuple[Floats, Ints]]:
    """Return scores and offsets: one action, two, many, ragged, ties, and scores at the ends of the range."""
    rng = np.random.default_rng(0)
    ragged = rng.integers(1, 9, size=40)
    return [
        (np.array([0.3]), np.array([0, 1])),
        (np.array([0.3, 0.3]), np.array([0, 2])),
        (np.array([1.0, -1.0]), np.array([0, 2])),
        (np.zeros(1_000), np.array([0, 1_000])),
        (rng.normal(size=1_000), np.array([0, 1_000])),
        (rng.normal(size=int(ragged.sum())), np.concatenate([[0], ragged.cumsum()])),
        (np.round(rng.normal(size=int(ragged.sum()))), np.concatenate([[0], ragged.cumsum()])),
        (np.array([-5.0, 5.0, 5.0, 4.999999999]), np.array([0, 4])),
        (np.array([1e308, -1e308, 0.0, 5e-324]), np.array([0, 2, 4])),
    ]


def predicted(rule: Rule, scores: Floats) -> Floats:
    """Return what a rule is given: scores, or those of three members that are clearly of other minds."""
    return np.stack([scores, 0.5 * scores, np.round(scores)]) if rule.asks_members else scores


def pmf_of(rule: Rule, scores: Floats, offsets: Ints, given: Exploration = GIVEN) -> Floats:
    """Return the rule's probabilities."""
    if rule.asks_members:
        return rule.pmf(np.stack([scores, np.nextafter(scores, np.inf), np.round(scores)]), offsets, given)
    return rule.pmf(scores, offsets, given)


def check_it_gives_distributions(rule: Rule) -> None:
    for scores, offsets in cases():
        pmf = pmf_of(rule, scores, offsets)
        assert pmf.shape == scores.shape
        assert pmf.dtype == np.float64
        mix.check_pmf(pmf, offsets)


def check_a_single_action_is_certain(rule: Rule) -> None:
    assert pmf_of(rule, np.array([0.7]), np.array([0, 1])).tolist() == [1.0]


def check_ties_share_alike(rule: Rule) -> None:
    pmf = pmf_of(rule, np.full(5, 0.25), np.array([0, 5]))
    assert np.allclose(pmf, 0.2, rtol=0, atol=1e-12)


def check_it_never_prefers_a_lower_score(rule: Rule) -> None:
    for scores, offsets in cases():
        pmf = pmf_of(rule, scores, offsets)
        for low, high in pairwise(offsets):
            order = np.argsort(scores[low:high], kind="stable")
            assert (np.diff(pmf[low:high][order]) >= -1e-12).all()


def check_the_order_offered_does_not_matter(rule: Rule) -> None:
    rng = np.random.default_rng(1)
    for scores, offsets in cases():
        order = np.concatenate([low + rng.permutation(high - low) for low, high in pairwise(offsets)])
        again = pmf_of(rule, scores[order], offsets)
        assert np.allclose(again, pmf_of(rule, scores, offsets)[order], rtol=0, atol=1e-12)


def check_a_decision_does_not_depend_on_the_others(rule: Rule) -> None:
    for scores, offsets in cases():
        whole = pmf_of(rule, scores, offsets)
        for low, high in pairwise(offsets):
            alone = pmf_of(rule, scores[low:high], np.array([0, high - low]))
            assert np.allclose(alone, whole[low:high], rtol=0, atol=1e-12)


def check_it_does_not_matter_where_zero_lies(rule: Rule) -> None:
    moved = replace(GIVEN, low=GIVEN.low + 2.0, high=GIVEN.high + 2.0)
    for scores, offsets in cases()[:-1]:  # the last one's scores are too large to be moved
        given = predicted(rule, scores)
        assert np.allclose(rule.pmf(given + 2.0, offsets, moved), rule.pmf(given, offsets, GIVEN), rtol=0, atol=1e-9)


def check_the_unit_of_rewards_does_not_matter(rule: Rule) -> None:
    """Rewards in cents: with numbers of 1 / reward a hundredth, or numbers that have no unit, every chance stays."""
    moved = replace(GIVEN, low=100 * GIVEN.low, high=100 * GIVEN.high)
    cents = replace(moved, gamma=GIVEN.gamma / 100, inverse_temperature=GIVEN.inverse_temperature / 100)
    found = [(predicted(rule, scores), offsets) for scores, offsets in cases()[:-1]]
    assert any(
        all(
            np.allclose(rule.pmf(100 * given, offsets, numbers), rule.pmf(given, offsets, GIVEN), rtol=0, atol=1e-9)
            for given, offsets in found
        )
        for numbers in (cents, moved)
    )


def check_rewards_in_any_unit_give_the_same_probabilities_where_their_noise_is_known(rule: Rule) -> None:
    known = replace(GIVEN, sigma=0.7)
    for times in (1e-3, 1e3):
        moved = replace(known, low=times * known.low, high=times * known.high, sigma=times * known.sigma)
        for scores, offsets in cases()[:-1]:
            given = predicted(rule, scores)
            found, again = rule.pmf(given, offsets, known), rule.pmf(times * given, offsets, moved)
            assert np.allclose(again, found, rtol=0, atol=1e-9)


def check_the_form_for_few_actions_is_the_same_bit_for_bit(rule: Rule) -> None:
    if rule.few is None:
        return
    rng = np.random.default_rng(2)
    drawn = [np.round(rng.normal(size=int(k)), int(digits)) for k, digits in rng.integers((1, 0), (65, 17), (300, 2))]
    whole = [scores[low:high] for scores, offsets in cases() for low, high in pairwise(offsets)]
    large = replace(GIVEN, gamma=1e6, rows=1e9, floor=0.0)
    for given in (GIVEN, replace(GIVEN, rows=0.0), large, replace(GIVEN, sigma=0.3), Exploration()):
        for scores in [*drawn, *whole]:
            few = np.array(rule.few(scores.tolist(), given))
            assert np.array_equal(few, rule.pmf(scores, np.array([0, scores.size]), given), equal_nan=True)


def check_it_changes_nothing_that_it_is_given(rule: Rule) -> None:
    for scores, offsets in cases():
        kept = scores.copy(), offsets.copy()
        first = pmf_of(rule, scores, offsets)
        assert np.array_equal(first, pmf_of(rule, scores, offsets))
        assert np.array_equal(scores, kept[0])
        assert np.array_equal(offsets, kept[1])


CHECKS = [value for name, value in sorted(globals().items()) if name.startswith("check_")]
