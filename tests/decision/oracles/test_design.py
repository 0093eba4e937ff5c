from __future__ import annotations

import numpy as np
import pytest

from decision.oracles.design import PairEntries, Part, Sizes
from decision.oracles.products import Entries
from decision.ragged import ragged_offsets


def entries(dense: np.ndarray) -> Entries:
    row, column = np.nonzero(dense)
    return Entries(column, dense[row, column], ragged_offsets(np.bincount(row, minlength=len(dense))))


@pytest.mark.parametrize("interactions", [True, False])
@pytest.mark.parametrize(("c", "share", "folded"), [(5, 0.7, True), (400, 0.01, False)])
def test_folded_or_written_out_a_part_is_the_design_of_the_formula(
    c: int, share: float, folded: bool, interactions: bool
) -> None:
    """Against the columns written out by hand: 1, context, action, their products, and two pairs of action columns."""
    rng = np.random.default_rng(0)
    r, d, a = 40, 12, 4
    x = rng.normal(size=(r, c)) * (rng.random((r, c)) < share)
    actions = rng.normal(size=(d, a)) * (rng.random((d, a)) < 0.7)
    of = rng.integers(0, d, r)
    each = np.stack([actions[:, 0] * actions[:, 2], actions[:, 1] * actions[:, 3]], axis=1)[:, : 2 * interactions]
    row, pair = np.nonzero(each)
    sizes = Sizes(c, a, each.shape[1], interactions)
    part = Part(entries(x), entries(actions), PairEntries(row, pair, each[row, pair]), of, sizes)
    y = actions[of]
    products = (x[:, :, None] * y[:, None, :]).reshape(r, -1)[:, : c * a * interactions]
    design = np.concatenate([np.ones((r, 1)), x, y, products, each[of]], axis=1)
    assert design.shape == (r, sizes.width)
    assert part._folded == (folded and interactions)
    weights, residual = rng.normal(size=sizes.width), rng.normal(size=r)
    assert len(part) == r
    assert np.allclose(part.logits(weights), design @ weights, atol=1e-12)
    assert np.allclose(part.slope(residual), design.T @ residual, atol=1e-12)
    assert np.allclose(part.curvature(residual), (design**2).T @ residual, atol=1e-12)
    written = Part(entries(x), entries(actions), PairEntries(row, pair, each[row, pair]), of, sizes, written=True)
    assert np.allclose(written.logits(weights), design @ weights, atol=1e-12)
    assert np.allclose(written.curvatures(residual), (design.T * residual) @ design, atol=1e-12)
