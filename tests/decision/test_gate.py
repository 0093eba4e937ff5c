from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from decision.errors import FieldError
from decision.gate import judge
from decision.ope.estimate import Estimate


def lift(low: float, *, value: float = 0.02, ess: float = 500.0) -> Callable[..., Estimate]:
    def estimate(*, level: float) -> Estimate:
        assert level == pytest.approx(0.9)  # one-sided .05 is the lower end of a two-sided interval at .90
        return Estimate(value, low, value + (value - low), level, 1_000, ess)

    return estimate


def test_lower_bound_above_minus_the_margin_promotes() -> None:
    verdict = judge(lift(-0.004), alpha=0.05, margin=0.01, minimum_ess=50)
    assert verdict.promote
    assert verdict.reasons == ["lower bound of the lift -0.0040 at 95% is above -0.0100"]
    assert verdict.numbers == {"lift": 0.02, "lower_bound": -0.004, "ess": 500.0, "rows": 1_000.0}


@pytest.mark.parametrize("low", [-0.01, -0.5, -math.inf, math.nan])
def test_lower_bound_at_or_below_minus_the_margin_refuses(low: float) -> None:
    verdict = judge(lift(low), alpha=0.05, margin=0.01, minimum_ess=50)
    assert not verdict.promote
    assert "is not above -0.0100" in verdict.reasons[0]


def test_without_a_margin_a_gain_has_to_be_proven() -> None:
    assert not judge(lift(0.0), alpha=0.05, margin=0.0, minimum_ess=50).promote
    assert judge(lift(1e-6), alpha=0.05, margin=0.0, minimum_ess=50).promote


def test_too_little_evidence_refuses_however_good_it_looks() -> None:
    verdict = judge(lift(0.5, value=0.6, ess=49.0), alpha=0.05, margin=0.01, minimum_ess=50)
    assert not verdict.promote
    assert verdict.reasons == ["effective sample size 49 is below 50"]


def test_every_reason_is_given() -> None:
    assert len(judge(lift(-1.0, ess=1.0), alpha=0.05, margin=0.01, minimum_ess=50).reasons) == 2


@pytest.mark.parametrize(
    ("field", "value"), [("alpha", 0.0), ("alpha", 0.5), ("alpha", math.nan), ("margin", -0.1), ("margin", math.nan)]
)
def test_setting_outside_its_range_is_named(field: str, value: float) -> None:
    settings = {"alpha": 0.05, "margin": 0.01} | {field: value}
    with pytest.raises(FieldError) as caught:
        judge(lift(0.1), minimum_ess=50, alpha=settings["alpha"], margin=settings["margin"])
    assert caught.value.field == field


def test_narrow_gain_promotes_where_the_unbiased_lift_does_not_contradict_it() -> None:
    wide, narrow = lift(-0.015, value=-0.002), lift(0.001, value=0.006)
    verdict = judge(wide, switched=narrow, alpha=0.05, margin=0.01, minimum_ess=50)
    assert verdict.promote
    assert verdict.numbers["switched_lower_bound"] == 0.001
    assert not judge(wide, alpha=0.05, margin=0.01, minimum_ess=50).promote


def test_narrow_gain_that_the_unbiased_lift_contradicts_is_refused() -> None:
    """The reward model sees a gain of .02, the log a loss of .04 +- .01: the model is wrong."""
    verdict = judge(lift(-0.05, value=-0.04), switched=lift(0.01, value=0.02), alpha=0.05, margin=0.01, minimum_ess=50)
    assert not verdict.promote
    assert "lies above the upper bound -0.0300" in verdict.reasons[1]


def test_narrow_loss_does_not_stop_what_is_proven_to_be_no_worse() -> None:
    assert judge(lift(-0.004), switched=lift(-0.1), alpha=0.05, margin=0.01, minimum_ess=50).promote
    assert not judge(lift(-0.5), switched=lift(-0.1), alpha=0.05, margin=0.01, minimum_ess=50).promote
    assert not judge(lift(-0.5, ess=1.0), switched=lift(0.01), alpha=0.05, margin=0.01, minimum_ess=50).promote
