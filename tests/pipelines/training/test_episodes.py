"""The largest sum of an episode is that of all its decisions, wherever they lie and however much is held at a time."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipelines.lake.lake import Lake
from pipelines.training.episodes import episode_high
from tests.worlds.logged import START_US, append, rows_of

LOOP = "feed"


def rows(reward: np.ndarray, episodes: list[str | None], *, loop: str = LOOP, first: int = 0) -> pa.Table:
    n = len(reward)
    table = rows_of(
        loop,
        ts=START_US + (first + np.arange(n)) * 1_000_000,
        reward=reward,
        contexts=[{}],
        context=np.zeros(n, np.int64),
        actions=[{"level": 0.0}, {"level": 1.0}],
        chosen=np.zeros(n, np.int64),
        first=first,
    )
    at = table.column_names.index("episode_id")
    field = table.schema.field("episode_id")
    return table.set_column(at, field, pa.array(episodes, field.type))


@pytest.mark.parametrize(("seed", "held"), [(1, 11), (2, 53), (3, 100_000)])
def test_the_largest_sum_is_found_whatever_is_held_at_a_time(tmp_path: Path, seed: int, held: int) -> None:
    rng, sums = np.random.default_rng(seed), defaultdict[str, float](float)
    lake = Lake(tmp_path / "lake")
    parts = []
    for first in range(0, 600, 150):
        reward = rng.normal(0.5, 2.0, 150)
        names = [f"visit-{number}" if number else None for number in rng.integers(0, 40, 150)]
        for value, name in zip(reward.tolist(), names, strict=True):
            if name is not None and value > 0.0:
                sums[name] += value
        parts.append(rows(reward, names, first=first))
    # Another loop's episode of the same name adds nothing.
    append(lake, iter([*parts, rows(np.full(5, 1e6), ["visit-1"] * 5, loop="other")]))
    version = lake.version("interactions")
    found = episode_high(lake, LOOP, version, rows_at_once=held)
    assert found == pytest.approx(max(sums.values()), rel=1e-12)
    assert found == episode_high(lake, LOOP, version, rows_at_once=held)


def test_without_an_episode_that_brought_something_there_is_none(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    append(lake, iter([rows(np.array([3.0, -1.0, 0.0]), [None, "visit-1", "visit-2"])]))
    assert episode_high(lake, LOOP, lake.version("interactions")) is None
