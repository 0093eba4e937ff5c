from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given

from decision.ragged import group_argmax, group_max, group_sum, normalise, sizes, spread
from tests.strategies import ragged_scores


@given(case=ragged_scores())
def test_group_arithmetic_equals_a_loop_over_groups(case) -> None:
    values, offsets = case
    groups = [values[low:high] for low, high in pairwise(offsets)]
    assert sizes(offsets).tolist() == [len(group) for group in groups]
    assert np.allclose(group_sum(values, offsets), [group.sum() for group in groups], atol=1e-12)
    assert group_max(values, offsets).tolist() == [group.max() for group in groups]
    first = [low + int(np.argmax(group)) for low, group in zip(offsets, groups, strict=False)]
    assert group_argmax(values, offsets).tolist() == first
    per_group = np.arange(len(groups), dtype=np.float64)
    expected = np.concatenate([np.full(len(group), i) for i, group in enumerate(groups)])
    assert spread(per_group, offsets).tolist() == expected.tolist()


@given(case=ragged_scores(low=0.0))
def test_normalised_weights_sum_to_one_and_keep_their_ratios(case) -> None:
    values, offsets = case
    weights = values + 0.5
    shares = normalise(weights, offsets)
    assert np.allclose(group_sum(shares, offsets), 1.0, rtol=0, atol=1e-12)
    assert np.allclose(shares * spread(group_sum(weights, offsets), offsets), weights)
