from __future__ import annotations

import numpy as np
import pytest

from decision.errors import FieldError, SupportError
from decision.ope.estimators.dr import dr, dr_sums
from decision.ope.estimators.ips import ips, ips_sums
from decision.ope.estimators.snips import SnipsSums, snips
from decision.ope.quick import ips_snips_dr
from decision.ope.rows import Rows
from tests.contracts.estimator import world_of


@pytest.mark.parametrize("n", [2, 500, 40_000])
def test_the_sweep_agrees_with_the_exact_sums(n: int) -> None:
    world = world_of(np.random.default_rng(n), n)
    rows = Rows.of(world.log, world.pmf, world.expected)
    found = ips_snips_dr(rows.weight, rows.reward, rows.direct, rows.fitted)
    exact = {
        "ips": ips(ips_sums(rows.weight, rows.reward)),
        "snips": snips(SnipsSums.of(rows.weight, rows.reward)),
        "dr": dr(dr_sums(world.log, world.pmf, world.expected)),
    }
    for name, estimate in exact.items():
        assert estimate is not None
        assert found[name].value == pytest.approx(estimate.value, rel=1e-12)
        if n > 400:  # Student's interval is the normal one by then
            assert found[name].low == pytest.approx(estimate.low, rel=2e-3)
    assert found["ess"].value == pytest.approx(exact["ips"].ess)


def test_what_does_not_fit_is_named() -> None:
    ones = np.ones(5)
    with pytest.raises(FieldError, match="reward"):
        ips_snips_dr(ones, ones[:4], ones, ones)
    with pytest.raises(SupportError, match="no support"):
        ips_snips_dr(0 * ones, ones, ones, ones)
    with pytest.raises(SupportError, match="fewer than two"):
        ips_snips_dr(ones[:1], ones[:1], ones[:1], ones[:1])
