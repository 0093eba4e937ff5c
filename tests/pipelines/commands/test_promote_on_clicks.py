"""`decision promote` on clicks of one in two hundred: what is worth a fortieth of the champion is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.lake.lake import Lake
from pipelines.operations.init import init_loop
from pipelines.registry.registry import Registry
from pipelines.settings import load_loop
from pipelines.training.train import train
from tests.pipelines import test_cli
from tests.worlds.logged import START_US, append, rows_of
from tests.worlds.synthetic import LATER, new_settings

run = test_cli.run
ROWS, OFFERS = 40_000, [{"kind": kind} for kind in "abc"]
STEP_US = 60_000_000


def filled(folder: Path, *, pays: int, rate: float, seed: int) -> Lake:
    """A lake of decisions that mostly show offer 0, of which offer `pays` is clicked at `rate` and others rarely."""
    rng = np.random.default_rng(seed)
    pmf = np.tile(np.array([0.9, 0.05, 0.05]), (ROWS, 1))
    chosen = rng.choice(3, p=pmf[0], size=ROWS)
    reward = (rng.random(ROWS) < np.where(chosen == pays, rate, rate / 40)).astype(float)
    lake = Lake(folder)
    rows = rows_of(
        "news",
        ts=START_US + np.arange(ROWS) * STEP_US,
        reward=reward,
        contexts=[{"hour": hour} for hour in range(24)],
        context=rng.integers(24, size=ROWS),
        actions=OFFERS,
        chosen=chosen,
        pmf=pmf,
    )
    append(lake, [rows])
    return lake


@pytest.mark.parametrize(("rate", "seed"), [(0.006, 1), (0.01, 2)])
def test_a_version_that_loses_all_clicks_is_refused_however_small_they_are(
    run: Any, tmp_path: Path, rate: float, seed: int
) -> None:
    (tmp_path / "home").mkdir()
    settings = new_settings(tmp_path / "home")
    init_loop(settings, "news")
    loop, registry = load_loop(settings, "news"), Registry(settings)
    lake = filled(settings.lake_url, pays=0, rate=rate, seed=seed)
    champion = train(lake, registry, loop, seed=1, now=LATER).version
    registry.set_alias("news", "champion", champion, {})
    # Another world taught it to show offer 2, which nobody clicks here.
    other = filled(tmp_path / "other", pays=2, rate=0.5, seed=seed)
    worse = train(other, registry, loop, seed=1, now=LATER).version
    done = run("promote", "news", "--version", str(worse), "--json")
    assert done.status == 3
    assert not done.result["promoted"]
    assert any("is at least" in reason for reason in done.result["reasons"]), done.result
    assert registry.aliases("news")["champion"] == champion
