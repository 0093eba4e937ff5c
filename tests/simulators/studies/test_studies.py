from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from decision.guard.rules import GuardRules
from simulators.environments.auditors import stage, synthetic
from simulators.environments.sessions import SessionWorld
from simulators.environments.slates import SLOTS, SlateWorld
from simulators.studies import contextual, fairness, interval, stepmix
from simulators.studies.sequences import METHODS, World, climb, ladder

TINY = stepmix.Size(
    episodes=200,
    program_episodes=4,
    offline=200,
    guard_runs=2,
    guard_decisions=6_000,
    long_runs=1,
    long_decisions=6_000,
    contextual_rounds=60,
    sequence_runs=1,
    sequences=1_000,
    lazy=0.1,
)


@pytest.fixture(scope="module")
def small() -> dict[str, object]:
    return stepmix.run([7, 8], TINY)


def test_stepmix_result_has_the_promised_keys(small: dict) -> None:
    assert set(small["tabular"]) == {"tight", "loose"}
    for rows in small["tabular"].values():
        for name in ("ucbvi", "stepmix", "epsmix", "hard_gate", "conservative_budget", "optpess", "dope"):
            assert {"regret", "regret_ci", "violations", "violations_ci"} <= set(rows[name])
    guard = small["guard"]
    for key in ("violation_probability", "decisions_to_full", "decisions_to_kill"):
        assert set(guard[key]) == set(guard[f"{key}_ci"]) == {"-0.06", "-0.10", "-0.30", "+0.05", "+0.10", "+0.00"}
    assert {"drift_delay", "drift_delay_ci"} <= set(guard)


def test_stepmix_is_safe_where_the_unconstrained_learner_is_not(small: dict) -> None:
    """Seeded; by the theory StepMix violates with probability 0.1 at most, measured 0 in 20 seeds."""
    for rows in small["tabular"].values():
        assert rows["stepmix"]["violations"] == rows["epsmix"]["violations"] == rows["baseline"]["violations"] == 0
        assert rows["ucbvi"]["violations"] > 0


def test_curves_end_at_the_regret_that_is_reported(small: dict) -> None:
    row = small["tabular"]["tight"]["ucbvi"]
    assert row["curve"]["episode"][-1] == TINY.episodes
    assert row["curve"]["regret"][-1] == pytest.approx(row["regret"])


def test_the_same_seeds_give_the_same_result_and_others_another() -> None:
    first, again, other = (fairness.run(seeds, 60, ["synthetic"], windows=3) for seeds in ([1], [1], [2]))
    assert repr(first) == repr(again)
    assert first["datasets"] != other["datasets"]


def test_fairness_result_has_the_promised_keys_and_the_dual_violates_less_than_the_blind() -> None:
    """Seeded; over ten seeds tried the dual's share was below half of the blind's each time."""
    result = fairness.run([0, 1], 600, ["synthetic"], windows=20)
    methods = result["datasets"]["synthetic"]
    assert {"dual", "blind", "best_fair", "uniform", "best_unfair"} <= set(methods)
    assert {"epsilon_greedy", "smooth", "ftpl"} <= set(methods)
    for row in methods.values():
        assert {"error", "error_ci", "violating_rounds", "violating_rounds_ci", "reports", "reports_ci"} <= set(row)
    assert methods["dual"]["violating_rounds"] < methods["blind"]["violating_rounds"]
    assert methods["blind"]["reports"] == 0 < methods["dual"]["reports"]
    assert methods["epsilon_greedy"]["violating_rounds"] > methods["ftpl"]["violating_rounds"]
    rankings = result["mining"]["synthetic"]
    assert set(rankings) == {"ratio", "learned_metric", "nearest", "largest_gap", "random"}
    assert rankings["learned_metric"]["any_5"] > rankings["random"]["any_5"]


def test_a_stage_keeps_the_people_its_hypotheses_were_fitted_on_apart() -> None:
    people = synthetic(np.random.default_rng(0), people=1_500)
    scene = stage(np.random.default_rng(1), people, rounds=5)
    assert scene.rest.size == 500
    assert scene.rules.shape == (300, people.features.shape[1] + 2)


def test_contextual_thompson_keeps_every_round_and_clucb_the_total() -> None:
    """Seeded; each fails with probability 0.05 at most per seed by its own guarantee."""
    rows = contextual.run([0, 1], rounds=400, progress=lambda what, share: None)["algorithms"]
    assert rows["stagewise_thompson"]["violations"] == 0
    assert rows["clucb"]["total_violations"] == rows["conservative_squarecb"]["total_violations"] == 0
    assert rows["linucb"]["violations"] > 0
    assert rows["baseline"]["regret"] > rows["linucb"]["regret"]


@pytest.mark.parametrize("build", [SlateWorld, SessionWorld])
@pytest.mark.parametrize("lift", [-0.1, 0.05])
def test_worlds_have_the_lift_asked_for_and_ratios_that_average_to_one(build: type, lift: float) -> None:
    """Seeded: means within five standard errors, wrong with probability below 1e-5 each."""
    world: World = build(np.random.default_rng(3), lift)
    value = world.value(world.steps)
    tolerance = 1e-6 if build is SessionWorld else 0.02  # slates are measured on a sample with other draws
    assert world.value(0) / value - 1.0 == pytest.approx(lift, abs=tolerance)
    n = 20_000
    reward, ratios = world.draw(np.random.default_rng(4), np.full(n, world.steps))
    error = reward.std() / np.sqrt(n)
    assert abs(reward.mean() - value) < 5 * error + 0.01 * value
    last = np.exp(ratios[:, -1])
    assert abs(last.mean() - 1.0) < 5 * last.std() / np.sqrt(n)
    carried = reward * last  # importance sampling of the last step, against the value of that step mixture
    assert abs(carried.mean() - world.value(world.steps - 1)) < 5 * carried.std() / np.sqrt(n) + 0.01 * value


def test_slates_show_each_item_once() -> None:
    world = SlateWorld(np.random.default_rng(0), 0.1)
    items, _ = world._slates(np.arange(100) % (SLOTS + 1), np.random.default_rng(1).random((100, SLOTS)))
    assert all(len(set(row)) == SLOTS for row in items.tolist())


def test_ladders_end_with_the_whole_candidate_at_the_top_and_begin_for_free() -> None:
    rules = GuardRules()
    for method in METHODS:
        rungs = ladder(method, 5, rules)
        assert (rungs[-1].leading, rungs[-1].weight, rungs[-1].share) == (0, rules.top, 1.0)
        assert rungs[0].weight * rungs[0].share <= rules.alpha + 1e-12
    per_leading = np.arange(6.0)
    assert ladder("stepmix", 5, rules)[1].of(per_leading) == pytest.approx(0.9 * 5 + 0.1 * 4)


def test_a_good_candidate_of_sessions_climbs_by_coin_and_a_bad_one_never_reaches_the_top() -> None:
    """Seeded; a bad candidate passes with probability 0.05 at most."""
    rules = GuardRules(batch=500)
    good, bad = (SessionWorld(np.random.default_rng(0), lift) for lift in (0.1, -0.2))
    assert climb(good, "coin", rules, np.random.default_rng(1), count=20_000).full is not None
    for method in METHODS:
        climbed = climb(bad, method, rules, np.random.default_rng(1), count=5_000)
        assert climbed.full is None
        assert not climbed.violated


def test_intervals_are_those_of_the_textbook() -> None:
    low, high = interval.of_mean([1.0, 2.0, 3.0])
    half = 4.302652729911275 / np.sqrt(3.0)  # Student's 97.5% quantile with two degrees of freedom
    assert (low, high) == (pytest.approx(2.0 - half), pytest.approx(2.0 + half))
    assert interval.of_mean([1.0, 2.0, 3.0], low=0.5)[0] == 0.5
    assert interval.of_mean([4.0]) == [None, None]
    # Clopper and Pearson for no hit in n runs: 1 - 0.025^(1/n).
    assert interval.of_share(0, 40) == [0.0, pytest.approx(1.0 - 0.025 ** (1 / 40))]
    assert interval.of_share(0, 0) == [None, None]


@pytest.mark.parametrize("n", [6, 9, 40, 200])
def test_the_interval_of_the_median_covers_it_in_95_of_100_samples(n: int) -> None:
    low, high = interval.of_median([float(value) for value in range(n)])
    assert low is not None
    assert high == n - 1 - low
    # It fails when fewer than low + 1 values lie below the median, or as many above it.
    missed = 2 * stats.binom.cdf(int(low), n, 0.5)
    wider = 2 * stats.binom.cdf(int(low) + 1, n, 0.5)
    assert missed <= 0.05 < wider or missed <= 0.05 < wider + 1e-9


def test_what_never_happened_is_later_than_everything() -> None:
    assert interval.median([1, None, 3]) == 3.0
    assert interval.median([1, None, None]) is None
    assert interval.median([]) is None
    assert interval.of_median([1.0, None]) == [None, None]
