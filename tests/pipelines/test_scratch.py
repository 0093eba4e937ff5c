from __future__ import annotations

import numpy as np
import pytest

from pipelines.scratch import Spill


@pytest.mark.parametrize("held_bytes", [0, 300, 10_000])
def test_parts_come_back_as_they_went_in_as_often_as_they_are_asked_for(held_bytes: int) -> None:
    rng = np.random.default_rng(0)
    parts = [
        [rng.normal(size=(n, 2)), rng.integers(0, 9, n).astype(np.int32), np.zeros(0), np.array([n, 7])]
        for n in (5, 0, 12, 3)
    ]
    with Spill(held_bytes) as spill:
        held = [spill.append(part) for part in parts]
        assert held == sorted(held, reverse=True)
        assert sum(held) == (0 if held_bytes == 0 else 2 if held_bytes == 300 else 4)
        for _ in range(2):
            assert len(spill) == len(parts)
            for found, part in zip(spill, parts, strict=True):
                assert all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(found, part, strict=True))
        spill.append(parts[0])
        assert np.array_equal(list(spill)[-1][0], parts[0][0])
