"""How often a version would have done what the application did."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from scipy import stats

from decision.batch import Batch, Interactions
from decision.errors import FieldError
from pipelines.evaluation.agreement import agreement, agreement_key, keep_agreement, last_agreement
from pipelines.settings import load_settings
from pipelines.state.state import State


def drawn(chosen: list[int], k: int = 3) -> Interactions:
    n = len(chosen)
    offsets = np.arange(n + 1, dtype=np.int64) * k
    batch = Batch([{}] * n, [{}] * (n * k), [str(i) for i in range(k)] * n, offsets)
    return Interactions(batch, offsets[:-1] + chosen, np.ones(n), np.zeros(n), np.full(n * k, 1.0 / k))


@pytest.mark.parametrize(("agreed", "n"), [(0, 7), (7, 7), (31, 100), (1, 1)])
def test_the_interval_is_wilsons(agreed: int, n: int) -> None:
    scores = np.tile([0.1, 0.9, 0.3], n)
    found = agreement("4", drawn([1] * agreed + [2] * (n - agreed)), scores)
    wanted = stats.binomtest(agreed, n).proportion_ci(0.95, "wilson")
    assert (found.version, found.decisions, found.share) == ("4", n, agreed / n)
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high))


@pytest.mark.parametrize("n", range(1, 2000, 37))
def test_the_interval_holds_the_share_also_at_its_ends(n: int) -> None:
    scores = np.tile([0.1, 0.9, 0.3], n)
    never, always = (agreement("4", drawn([chosen] * n), scores) for chosen in (2, 1))
    assert (never.low, never.share) == (0.0, 0.0)
    assert (always.high, always.share) == (1.0, 1.0)


def test_equally_good_actions_share_and_the_order_offered_says_nothing() -> None:
    found = agreement("1", drawn([0, 1, 2, 0]), np.tile([0.5, 0.5, 0.1], 4))
    assert found.share == pytest.approx((0.5 + 0.5 + 0.0 + 0.5) / 4)


def test_a_loop_shows_what_its_last_night_found(tmp_path: Path) -> None:
    settings = load_settings({}, home=str(tmp_path))
    assert last_agreement(settings, "news") is None
    found = agreement("2", drawn([0, 1]), np.tile([0.2, 0.1, 0.0], 2))
    keep_agreement(settings, "news", found)
    assert last_agreement(settings, "news") == found
    assert str(found).startswith("version 2 would have done the same in 50.0% [")
    with State(settings.state_url) as state:
        state.put({agreement_key("news"): (1, b"{")})
    with pytest.raises(FieldError, match="agreement of news"):
        last_agreement(settings, "news")
    former = tmp_path / "agreement" / "old.json"  # of an earlier release
    former.parent.mkdir()
    former.write_bytes(msgspec.json.encode(found))
    assert last_agreement(settings, "old") == found
