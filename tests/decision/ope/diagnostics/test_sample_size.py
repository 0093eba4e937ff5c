from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import norm

from decision.errors import FieldError
from decision.ope.diagnostics.sample_size import rows_needed


def test_the_textbook_case_of_a_mean() -> None:
    """A standard deviation of 1, a lift of a half, 5% and 80%: 31.4 rows, and 62.8 in each side."""
    needed = rows_needed(0.5, rows=400, lift_error=1 / 20, logged_error=1 / 20)
    assert (needed.replay, needed.side) == (32, 63)
    assert needed.smallest == pytest.approx(2.8016 / 20, rel=1e-4)
    assert rows_needed(-0.5, rows=400, lift_error=1 / 20, logged_error=1 / 20).replay == 32
    assert rows_needed(0.05, rows=400, lift_error=1 / 20, logged_error=1 / 20).replay == math.ceil(3139.6)


def test_so_many_rows_show_the_lift_in_the_share_of_cases_that_was_asked_for() -> None:
    """4,000 draws of a mean: the share is within .03 of the power with probability .99999."""
    rng = np.random.default_rng(5)
    spread, lift = 2.5, 0.3
    for level, power in ((0.95, 0.8), (0.9, 0.6)):
        n = rows_needed(lift, rows=100, lift_error=spread / 10, logged_error=1.0, level=level, power=power).replay
        means = rng.normal(lift, spread / math.sqrt(n), size=4_000)
        seen = np.abs(means) > norm.ppf(0.5 + level / 2) * spread / math.sqrt(n)
        assert seen.mean() == pytest.approx(power, abs=0.03)


@pytest.mark.parametrize(
    ("changes", "field"),
    [({"lift": 0.0}, "lift"), ({"lift": math.nan}, "lift"), ({"level": 1.0}, "level"), ({"power": 0.0}, "power")],
)
def test_what_nobody_can_answer_is_named(changes: dict[str, float], field: str) -> None:
    given = {"lift": 0.1, "level": 0.95, "power": 0.8, **changes}
    with pytest.raises(FieldError) as told:
        rows_needed(given.pop("lift"), rows=10, lift_error=1.0, logged_error=1.0, **given)
    assert told.value.field == field
