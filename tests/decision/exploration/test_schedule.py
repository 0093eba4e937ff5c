from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decision.errors import FieldError
from decision.exploration.rule import Exploration
from decision.exploration.schedule import floor_share, scheduled
from decision.generations import Tally
from decision.options import PolicySettings
from tests.decision.exploration.test_sigma import log

SHIPPED = PolicySettings()


def test_floor_is_what_the_log_lacks_over_its_rows() -> None:
    assert floor_share(100.0, 10_000.0, least=0.001, wanted=250.0, most=0.05) == pytest.approx(0.015)


def test_a_log_that_was_drawn_uniformly_needs_the_smallest_floor_alone() -> None:
    rows = log(np.zeros(1_000))
    tally = Tally()
    tally.add(rows, np.ones(1_000))
    assert tally.uniform_rows == 1_000.0
    rule = scheduled(Exploration(), rows=1_000.0, uniform_rows=tally.uniform_rows, sigma=1.0, least=0.01, wanted=250.0)
    assert rule.floor == 0.01


def test_uniform_draws_are_counted_by_the_uniform_part_of_each_distribution_and_fade_with_the_rows() -> None:
    rows = log(np.zeros(3))
    pmf = np.array([0.1, 0.9, 0.5, 0.5, np.nan, np.nan])  # uniform parts .2, 1 and nothing known
    faded = type(rows)(rows.batch, rows.chosen, rows.propensity, rows.reward, pmf)
    tally = Tally()
    tally.add(faded, np.array([2.0, 1.0, 2.0]))
    assert tally.uniform_rows == pytest.approx((2.0 * 0.2 + 1.0) / 2.0)


@pytest.mark.parametrize(("rows", "held", "floor"), [(2_500.0, 100.0, 0.01), (2_500.0, 50.0, 0.03), (800.0, 0.0, 0.05)])
def test_a_short_log_needs_no_more_than_its_share(rows: float, held: float, floor: float) -> None:
    """A twentieth of 2,500 rows is 125: with 100 of them uniform a hundredth is lacking, with 50 three hundredths."""
    assert floor_share(held, rows, least=0.01, wanted=250.0, most=0.05) == pytest.approx(floor)


@given(
    held=st.floats(0, 1e6),
    rows=st.floats(0, 1e9),
    least=st.floats(0, 1),
    wanted=st.floats(0, 1e5),
    most=st.floats(0, 1),
)
def test_floor_stays_between_its_ends_and_falls_as_the_log_grows(
    held: float, rows: float, least: float, wanted: float, most: float
) -> None:
    floor = floor_share(held, rows, least=least, wanted=wanted, most=most)
    assert min(least, most) <= floor <= most
    longer = floor_share(held, 2.0 * rows + 1.0, least=least, wanted=wanted, most=most)
    assert longer <= floor or wanted > most * rows
    assert floor_share(held + 1.0, rows, least=least, wanted=wanted, most=most) <= floor


def test_a_greedy_log_that_goes_on_gets_the_draws_it_wants_back() -> None:
    """Generations of 1,000 decisions without exploration of their own: at the end the log holds what it should."""
    held = rows = 0.0
    floors: list[float] = []
    for _ in range(40):
        floors.append(
            floor_share(held, rows, least=SHIPPED.floor_minimum, wanted=SHIPPED.floor_rows, most=SHIPPED.floor)
        )
        held, rows = held + 1_000 * floors[-1], rows + 1_000.0
    assert floors[0] == SHIPPED.floor
    assert floors[-1] == SHIPPED.floor_minimum
    assert held >= SHIPPED.floor_rows


def test_the_rule_keeps_everything_else() -> None:
    given = Exploration(kind="softmax", gamma=2.0, epsilon=0.3, low=-1.0, high=4.0, floor=0.02)
    found = scheduled(given, rows=7.0, uniform_rows=3.0, sigma=0.4, least=0.05, wanted=0.0)
    assert found == Exploration(
        kind="softmax", gamma=2.0, epsilon=0.3, low=-1.0, high=4.0, floor=0.02, rows=7.0, sigma=0.4
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [("least", -0.1), ("most", 1.5), ("wanted", -1.0), ("held", float("nan")), ("rows", -1.0)],
)
def test_number_outside_its_range_is_named(field: str, value: float) -> None:
    given = {"held": 1.0, "rows": 10.0, "least": 0.01, "wanted": 5.0, "most": 0.05} | {field: value}
    names = {"least": "floor_minimum", "most": "floor", "wanted": "floor_rows", "held": "uniform_rows", "rows": "rows"}
    with pytest.raises(FieldError) as caught:
        floor_share(**given)
    assert caught.value.field == names[field]
