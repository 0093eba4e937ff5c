"""The short form of `tests.soak.coverage`."""

from __future__ import annotations

import pytest
from scipy import stats

from tests.soak.coverage import WORLDS, simulated

LOGS, MOST = 12, 9
FEW = ("clicks, 3 a log", "revenue", "revenue, far from the log", "heavy weights, few rewards")


@pytest.mark.statistical
def test_the_interval_to_read_first_holds_in_94_of_100_logs_whatever_the_rewards() -> None:
    """A share of 94% fails this with probability 5e-4; one of 70%, as Student's on rare clicks, passes with .06."""
    found = [simulated(WORLDS[name], LOGS, seed=3) for name in FEW]
    assert all(world["answered"] == 1.0 for world in found)
    misses = sum(round(LOGS * (1.0 - world["coverage"])) for world in found)
    assert misses <= MOST
    assert stats.binom.sf(MOST, LOGS * len(FEW), 0.06) < 1e-3
