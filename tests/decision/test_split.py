from __future__ import annotations

import numpy as np
import pytest

from decision.draw import seed_of, uniform_of
from decision.split import fold_of, in_share, uniforms_of

GOLDEN = [0.22048131135887694, 0.8942274217730768, 0.07959095914389158]
IDS = [f"event-{i}" for i in range(20_000)]


def test_split_is_the_same_for_ever() -> None:
    assert uniforms_of(["e1", "e2", "ü"], "holdout").tolist() == GOLDEN
    assert fold_of(["e1", "e2", "ü"], "holdout", 4).tolist() == [int(4 * u) for u in GOLDEN]


@pytest.mark.statistical
def test_shares_and_folds_are_even() -> None:
    """20,000 fixed ids; deviations of 4 standard errors: probability 6e-5 each over the choice of ids."""
    assert abs(in_share(IDS, "holdout", 0.2).mean() - 0.2) < 4 * np.sqrt(0.16 / 20_000)
    counts = np.bincount(fold_of(IDS, "replay", 5), minlength=5)
    assert counts.size == 5
    assert np.abs(counts - 4_000).max() < 4 * np.sqrt(20_000 * 0.16)


def test_a_larger_share_contains_the_smaller() -> None:
    small, large = in_share(IDS, "holdout", 0.1), in_share(IDS, "holdout", 0.3)
    assert not (small & ~large).any()
    assert not in_share(IDS, "holdout", 0.0).any()
    assert in_share(IDS, "holdout", 1.0).all()


@pytest.mark.statistical
def test_split_knows_nothing_of_the_draw_or_of_other_salts() -> None:
    """Correlations of 20,000 pairs stay below 4 standard errors, .028."""
    split = uniforms_of(IDS, "holdout")
    draws = np.array([uniform_of(seed_of("loop", event)) for event in IDS])
    assert abs(np.corrcoef(split, draws)[0, 1]) < 0.028
    assert abs(np.corrcoef(split, uniforms_of(IDS, "replay"))[0, 1]) < 0.028


def test_no_events_are_no_error() -> None:
    assert fold_of([], "replay", 5).shape == (0,)
