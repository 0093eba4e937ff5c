from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np
import pytest

from decision.errors import FieldError
from decision.gate import Reference, Verdict, judge, spent
from decision.ope.estimate import Estimate


def lift(low: float, *, value: float = 0.02, ess: float = 500.0) -> Callable[..., Estimate]:
    def estimate(*, level: float) -> Estimate:
        assert level == pytest.approx(0.95)  # one-sided .05 / 2, the first of all verdicts' shares
        return Estimate(value, low, value + (value - low), level, 1_000, ess)

    return estimate


def champion(low: float, kept: float | None = None, switched: Callable[..., Estimate] | None = None) -> Reference:
    return Reference("the champion", lift(low), None if kept is None else lift(kept), switched)


def promotes(*references: Reference, margin: float | None = None) -> bool:
    return judge(references, alpha=0.05, minimum_ess=50, margin=margin).promote


def test_a_version_that_keeps_most_of_the_gain_is_promoted_and_not_proven() -> None:
    verdict = judge([champion(-0.004, kept=0.001)], alpha=0.05, minimum_ess=50)
    assert (verdict.promote, verdict.proven) == (True, False)
    assert verdict.numbers["lower_bound"] == -0.004
    assert verdict.numbers["kept_lower_bound"] == 0.001


def test_a_reason_is_a_sentence_and_names_a_margin_only_where_there_is_one() -> None:
    told = "is at least +0.001, with 97.5 % confidence: that is above 0"
    bare = judge([champion(-0.004, kept=0.001)], alpha=0.05, minimum_ess=50)
    assert bare.reasons[0] == f"the lift over the champion {told}"
    diluted = Reference("the champion", lift(-0.004, value=0.002), lift(0.001, value=0.007))
    verdict = judge([diluted], alpha=0.05, minimum_ess=50)
    assert verdict.reasons[0] == f"the lift over the champion, plus a margin of 0.005, {told}"


def test_a_version_better_than_the_last_proven_one_is_proven() -> None:
    verdict = judge([champion(0.004, kept=0.01)], alpha=0.05, minimum_ess=50)
    assert (verdict.promote, verdict.proven, verdict.numbers["proven"]) == (True, True, 1.0)
    assert verdict.reasons[-1] == "proven better than the champion"


@pytest.mark.parametrize("low", [0.0, -0.5, -math.inf, math.nan])
def test_a_lower_bound_that_is_not_above_zero_refuses(low: float) -> None:
    verdict = judge([champion(low, kept=low)], alpha=0.05, minimum_ess=50)
    assert not verdict.promote
    assert "is not above" in verdict.reasons[0]


def test_over_the_baseline_a_gain_has_to_be_proven() -> None:
    assert not promotes(champion(0.0))
    assert promotes(champion(1e-6))


def test_a_margin_in_reward_units_takes_the_place_of_the_share() -> None:
    assert promotes(champion(-0.009, kept=-0.5), margin=0.01)
    assert not promotes(champion(-0.011, kept=0.5), margin=0.01)
    assert not promotes(champion(0.0, kept=0.5), margin=0.0)


def test_the_last_proven_version_holds_whatever_the_champion_is_worth() -> None:
    """Within the margin of the champion, which had used the margin up already."""
    proven = Reference("the last proven", lift(-0.02), lift(-0.006))
    verdict = judge([champion(-0.004, kept=0.004), proven], alpha=0.05, minimum_ess=50)
    assert not verdict.promote
    assert verdict.numbers["proven_kept_lower_bound"] == -0.006
    assert "the last proven" in verdict.reasons[0]


def test_being_better_than_the_champion_alone_is_no_proof() -> None:
    proven = Reference("the last proven", lift(-0.002), lift(0.001))
    verdict = judge([champion(0.003, kept=0.004), proven], alpha=0.05, minimum_ess=50)
    assert (verdict.promote, verdict.proven) == (True, False)


def test_too_little_evidence_refuses_however_good_it_looks() -> None:
    verdict = judge([Reference("the champion", lift(0.5, value=0.6, ess=49.0))], alpha=0.05, minimum_ess=50)
    assert (verdict.promote, verdict.proven) == (False, False)
    assert verdict.reasons == ["effective sample size 49 is below 50"]


def test_every_reason_is_given() -> None:
    far = [Reference(name, lift(-1.0, ess=1.0)) for name in ("one", "other")]
    assert len(judge(far, alpha=0.05, minimum_ess=50).reasons) == 3


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("alpha", 0.0),
        ("alpha", 0.5),
        ("alpha", math.nan),
        ("margin", -0.1),
        ("margin", math.nan),
        ("look", 0),
        ("likely", 0),
    ],
)
def test_setting_outside_its_range_is_named(field: str, value: float) -> None:
    settings, looks = {"alpha": 0.05, "margin": None}, {"look": 1, "likely": 1}
    (looks if field in looks else settings)[field] = value  # type: ignore[assignment]
    one = Reference("the champion", lift(0.1), look=int(looks["look"]), likely=int(looks["likely"]))
    with pytest.raises(FieldError) as caught:
        judge([one], minimum_ess=50, **settings)  # type: ignore[arg-type]
    assert caught.value.field == field


def test_without_a_reference_there_is_nothing_to_judge() -> None:
    with pytest.raises(FieldError, match="references"):
        judge([], alpha=0.05, minimum_ess=50)


def test_narrow_gain_promotes_where_the_unbiased_lift_does_not_contradict_it_and_proves_nothing() -> None:
    wide, narrow = lift(-0.015, value=-0.002), lift(0.001, value=0.006)
    verdict = judge([Reference("the champion", wide, wide, narrow)], alpha=0.05, minimum_ess=50)
    assert (verdict.promote, verdict.proven) == (True, False)
    assert verdict.numbers["switched_lower_bound"] == 0.001
    assert not promotes(Reference("the champion", wide, wide))


def test_narrow_gain_that_the_unbiased_lift_contradicts_is_refused() -> None:
    """The reward model sees a gain of .02, the log a loss of .04 +- .01: the model is wrong."""
    wide, narrow = lift(-0.05, value=-0.04), lift(0.01, value=0.02)
    verdict = judge([Reference("the champion", wide, wide, narrow)], alpha=0.05, minimum_ess=50)
    assert not verdict.promote
    assert "+0.02, but without the model it is no more than -0.03" in verdict.reasons[1]


def test_narrow_loss_does_not_stop_what_is_proven_to_keep_the_gain() -> None:
    assert promotes(champion(-0.004, kept=0.004, switched=lift(-0.1)))
    assert not promotes(champion(-0.5, kept=-0.4, switched=lift(-0.1)))


def test_the_shares_of_all_verdicts_add_up_to_the_error() -> None:
    assert sum(spent(0.05, look, look) for look in range(1, 100_000)) == pytest.approx(0.05, rel=1e-4)
    assert spent(0.05, 1, 1) == 0.025
    likely = [None if look % 3 else look // 3 for look in range(1, 100_000)]
    assert sum(spent(0.05, look, each) for look, each in enumerate(likely, start=1)) == pytest.approx(0.05, rel=1e-4)


def test_a_verdict_without_a_prospect_spends_little_and_leaves_the_rest_to_likely_ones() -> None:
    def judged(predicted: float | None, look: int, likely: int) -> Verdict:
        one = Reference("the champion", level_only, predicted=predicted, look=look, likely=likely)
        return judge([one], alpha=0.05, minimum_ess=50)

    def level_only(*, level: float) -> Estimate:
        return Estimate(0.0, -1.0, 1.0, level, 1_000, 500.0)

    hopeless, hopeful = judged(1.9, 8, 1), judged(2.3, 8, 1)
    assert (hopeless.numbers["likely"], hopeful.numbers["likely"]) == (0.0, 1.0)
    assert hopeless.numbers["alpha"] == pytest.approx(0.025 / 72)
    assert hopeful.numbers["alpha"] == pytest.approx(0.025 / 72 + 0.0125)
    assert judged(None, 8, 8).numbers["alpha"] == pytest.approx(0.05 / 72)


def generations(
    rng: np.random.Generator,
    step: Callable[[], float],
    *,
    noise: float,
    predicts: float | None = None,
    share: float = 0.05,
    count: int = 200,
) -> tuple[float, int]:
    """Return the value of the policy in charge at the end, and the false proofs, of a baseline worth 0 and a first
    version worth 1, each candidate worth `step` more than what it would replace; `noise` is a lift's standard error,
    `predicts` that of the model's prediction in standard errors, which is too high by as much."""
    value = proven = 1.0
    false, looks = 0, {"": [0, 0], "proven_": [0, 0]}
    for _ in range(count):
        candidate: float = value + step()
        error = noise * rng.standard_normal()

        def over(old: float, worth: float = candidate, error: float = error) -> Callable[..., Estimate]:
            def estimate(*, level: float) -> Estimate:
                half = noise * NormalDist().inv_cdf(0.5 + level / 2.0)
                found = worth - old + error
                return Estimate(found, found - half, found + half, level, 10_000, 1_000.0)

            return estimate

        wrong = None if predicts is None else predicts * (1.0 + rng.standard_normal())
        references = [
            Reference(
                name,
                over(old),
                over((1.0 - share) * old),
                predicted=None if wrong is None else (candidate - (1.0 - share) * old) / noise + wrong,
                look=looks[prefix][0] + 1,
                likely=looks[prefix][1] + 1,
            )
            for prefix, name, old in (("", "champion", value), ("proven_", "proven", proven))
        ]
        verdict = judge(references, alpha=0.05, minimum_ess=50)
        for prefix, counts in looks.items():
            counts[0] += 1
            counts[1] += verdict.numbers[f"{prefix}likely"] == 1.0
        if verdict.promote:
            value, looks[""] = candidate, [0, 0]
        if verdict.proven:
            false += candidate <= proven
            proven, looks["proven_"] = candidate, [0, 0]
    return value, false


@pytest.mark.statistical
@pytest.mark.parametrize("predicts", [None, 2.0])
@pytest.mark.parametrize("noise", [0.002, 0.02])
def test_two_hundred_versions_each_a_little_worse_cost_one_margin_at_most(noise: float, predicts: float | None) -> None:
    """In 40 runs, with error .05 at most: 8 or more beyond the margin have probability 7e-4."""
    rng = np.random.default_rng([7, int(1e3 * noise)])
    ends = [generations(rng, lambda: -0.008, noise=noise, predicts=predicts)[0] for _ in range(40)]
    assert sum(end < 0.95 - 1e-9 for end in ends) < 8
    if noise == 0.002:
        assert min(ends) < 1.0  # the margin is there to be used


@pytest.mark.statistical
@pytest.mark.parametrize("predicts", [None, 2.0])
def test_two_hundred_versions_of_noise_prove_nothing_but_by_the_stated_error(predicts: float | None) -> None:
    """Equal versions: in 40 runs, 8 or more with a false proof have probability 7e-4 at an error of .05."""
    rng = np.random.default_rng(8)
    runs = [generations(rng, lambda: 0.0, noise=0.01, predicts=predicts) for _ in range(40)]
    assert sum(false > 0 for _, false in runs) < 8


@pytest.mark.statistical
def test_versions_that_scatter_around_the_champion_cost_one_margin_at_most() -> None:
    rng = np.random.default_rng(9)
    worst = [generations(rng, lambda: 0.02 * rng.standard_normal(), noise=0.01)[0] for _ in range(40)]
    assert sum(value < 0.95 for value in worst) < 8
