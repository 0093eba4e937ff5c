"""A planted segment is found with an interval that holds it; without one, hardly ever is any called."""

from __future__ import annotations

import numpy as np
import pytest

from decision.columns import Texts
from decision.drift.observed import Described
from decision.drift.segments import CHOSEN, MOST_CELLS, Found, find_segments
from decision.errors import FieldError
from decision.ope.sums.means import MeanSums

LIFT, PLANTED = 0.1, "country=AT and device=phone"


def search(seed: int, n: int, *, effect: float = 0.0, names: int = 0, skewed: bool = False) -> Found:
    """Search `n` decisions whose lift is .1, and so much more for phones in Austria, a twelfth of them.

    Args:
        seed: of the log.
        n: decisions.
        effect: see above.
        names: features more, of two values each.
        skewed: terms are those of rare clicks under weights.
    """
    rng = np.random.default_rng(seed)
    device, country = rng.integers(0, 3, n), rng.integers(0, 4, n)
    known = [
        *(f"device={name}" for name in ("phone", "desk", "tablet")),
        *(f"country={name}" for name in ("AT", "DE", "CH", "FR")),
    ]
    columns = [device, 3 + country, np.full(n, 7)]
    values = [np.ones(n), np.ones(n), rng.random(n)]
    known.append("hour")
    for number in range(names):
        columns.append(len(known) + rng.integers(0, 2, n))
        values.append(np.ones(n))
        known += [f"more{number}=a", f"more{number}=b"]
    weight = rng.exponential(1.0, n) if skewed else np.ones(n)
    noise = weight * ((rng.random(n) < 0.1) - 0.1) if skewed else rng.standard_normal(n)
    terms = LIFT + noise + effect * ((device == 0) & (country == 0))
    decisions = Described(
        row=np.tile(np.arange(n), len(columns)),
        name=Texts(known, np.concatenate(columns)),
        value=np.concatenate(values),
        weight=np.ones(n),
        block=np.arange(n),
        subject=np.arange(n),
    )
    return find_segments(decisions, terms, weight, rng.integers(0, 2, n))


@pytest.mark.parametrize("effect", [-0.6, 0.6])
def test_a_planted_segment_is_found_and_its_interval_holds_it(effect: float) -> None:
    found = search(1, 20_000, effect=effect)
    (planted,) = [one for one in found.segments if one.of == PLANTED]
    assert planted.apart
    assert planted.share == pytest.approx(1 / 12, abs=0.01)
    assert planted.lift.low <= LIFT + effect <= planted.lift.high
    assert planted.beyond.low <= effect <= planted.beyond.high
    assert max(found.segments, key=lambda one: abs(one.beyond.value)) == planted
    assert found.searched + found.estimated == 20_000
    assert found.singles == 3 + 4 + 10
    assert 3 * 4 + 3 * 8 + 4 * 8 <= found.pairs <= 3 * 4 + 3 * 10 + 4 * 10


def test_segments_that_are_left_out_count_among_those_whose_error_is_shared() -> None:
    """In a segment that the policy nearly never reaches no interval can be had; the others' get no narrower by it."""
    rng, n = np.random.default_rng(6), 20_000
    kind, other = rng.integers(0, 8, n), rng.integers(0, 4, n)
    terms = rng.standard_normal(n) + 0.4 * (kind == 0)
    decisions = Described(
        row=np.tile(np.arange(n), 2),
        name=Texts([f"kind={at}" for at in range(8)] + [f"other={at}" for at in range(4)], np.append(kind, 8 + other)),
        value=np.ones(2 * n),
        weight=np.ones(n),
        block=np.arange(n),
        subject=np.arange(n),
    )
    half = rng.integers(0, 2, n)
    rare = np.where((half == 1) & (kind != 0), (rng.random(n) < 2e-3) * 500.0, 1.0)
    found = find_segments(decisions, terms, rare, half)
    assert 0 < len(found.segments) < found.chosen
    (one,) = [each.lift for each in found.segments if each.of == "kind=0"]
    own = (half == 1) & (kind == 0)
    alone = MeanSums.of(terms[own], rare[own], cubes=True).estimate(1.0 - 0.05 / found.chosen)
    assert [one.low, one.high] == pytest.approx([alone.low, alone.high])


@pytest.mark.statistical
@pytest.mark.parametrize("skewed", [False, True])
def test_without_a_planted_segment_the_stated_error_is_kept(skewed: bool) -> None:
    """Of 60 logs at 95%, more than 10 have a probability of 2e-4 each: in any call, and in any interval that misses."""
    found = [search(100 + seed, 4_000, skewed=skewed) for seed in range(60)]
    assert all(one.chosen == CHOSEN and len(one.segments) >= CHOSEN - 2 for one in found)
    called = sum(any(segment.apart for segment in one.segments) for one in found)
    missed = sum(any(not part.lift.low <= LIFT <= part.lift.high for part in one.segments) for one in found)
    assert max(called, missed) <= 10, (called, missed)


def test_what_is_looked_at_is_bounded_and_said() -> None:
    found = search(2, 3_000, names=150)
    assert found.singles == MOST_CELLS
    assert 0 < found.pairs <= MOST_CELLS * (MOST_CELLS - 1) // 2


def test_a_log_that_is_too_small_to_split_chooses_nothing() -> None:
    found = search(3, 150)
    assert (found.segments, found.chosen) == ([], 0)


def test_terms_of_another_length_are_refused() -> None:
    one = Described(*(np.zeros(0, np.int64), Texts([], np.zeros(0, np.int64)), np.zeros(0)), *(np.ones(3),) * 3)  # type: ignore[arg-type]
    with pytest.raises(FieldError, match="terms"):
        find_segments(one, np.zeros(2), np.ones(3), np.zeros(3, np.int64))
