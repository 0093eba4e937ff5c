from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from decision.errors import FieldError
from pipelines.studies import auxiliary as study
from pipelines.studies.report import markdown
from simulators.studies.auxiliary import nights, shop


def test_a_margin_of_nothing_keeps_nothing_and_one_of_everything_never_flips() -> None:
    few: dict[str, Any] = {"seed": 7, "fresh": True, "count": 7, "rows": 200}
    free = nights("none", margin=0.0, **few)
    assert nights("margin", margin=0.0, **few) == free
    assert nights("bonus", margin=0.0, **few) == free
    assert nights("margin", margin=1e9, **few).flips == 0.0
    assert 0.0 < free.flips < 1.0


def test_a_shop_logs_what_its_visitors_do() -> None:
    world = shop("aligned", 7)
    log, clicks = world.logged(20_000, np.random.default_rng(0))
    assert set(clicks[log.reward == 1.0].tolist()) == {1.0}
    assert log.reward.sum() / clicks.sum() == pytest.approx(0.08, abs=0.015)  # four standard errors
    assert log.propensity.tolist() == [0.2] * 20_000


def test_the_study_weighs_clicks_and_keeps_policies_and_prints_both() -> None:
    found = study.run([7], 500, quick=True, progress=lambda what, share: None)
    assert set(found.result["auxiliary"]) == {"aligned", "misleading"}
    for row in found.result["auxiliary"].values():
        assert all(0.0 < row[method]["value"] <= 1.0 for method in ("primary", "plain_sum", "chosen"))
    assert set(found.result["margin"]["log"]) == {"none", "margin", "margin_of_all", "bonus", "average"}
    assert "weights chosen" in markdown(found)
    assert "<svg" in found.figures[0].svg


def test_a_log_that_is_too_short_is_refused_by_name() -> None:
    with pytest.raises(FieldError, match="size"):
        study.run([7], 100, quick=True, progress=lambda what, share: None)
