"""Rewards in another unit change nothing: the stages of a night on the same log, its rewards multiplied or shifted.

Each stage is asserted by itself: what a training reads, its model, the losses of variants, the probabilities, the
gate's verdict, health, alarms, and the guard's evidence, weights and detector of drift. Only predictions and what is
made of them are in the unit of the rewards.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from decision.batch import Floats, Interactions
from decision.gate import Reference, Verdict, judge
from decision.generations import Tally
from decision.guard.evidence import certified_rung, evidence_of, log_mean_wealth
from decision.guard.rules import GuardRules
from decision.options import Range
from decision.policy import OraclePolicy
from decision.protocols import Oracle
from pipelines.evaluation.alarms import Alarmed, alarms
from pipelines.evaluation.health import Health, health
from pipelines.evaluation.holdout import Latest, Question, sums_of
from pipelines.guard.state import GuardState, Rows, begun, folded, rules_in, terms_of, weighed
from pipelines.interactions.arrays import to_interactions
from pipelines.lake.lake import Lake
from pipelines.settings import LoopSettings, Variant, parse_loop
from pipelines.training.train import exploration_of, scheduled_policy
from pipelines.training.variants import configuration, learned, weighted_log_loss
from pipelines.training.window import Data, window
from tests.worlds.logged import START_US, append, rows_of

ROWS = 8_000
ACTIONS = [{"colour": colour} for colour in ("red", "green", "blue")]
CONTEXTS = [{"x": round(0.1 * i, 1), "country": "de" if i % 2 else "fr"} for i in range(10)]
KINDS = ("clicks", "revenue", "costs", "stars")
TIMES = [(1e-3, 0.0), (1e3, 0.0)]
MOVED = [(1.0, 100.0), (1e3, -5e4)]
RULES = ("epsilon_greedy", "fastcb", "thompson", "regcb")
"""Rules whose numbers have no unit."""
BY_NOISE = ("falcon", "squarecb", "softmax")
"""Rules whose numbers count per sigma, which the training measures."""


def rewards(kind: str, better: Floats) -> Floats:
    """Return [n] rewards; those where `better` is larger are larger."""
    rng = np.random.default_rng(11)
    if kind == "clicks":
        return (rng.random(ROWS) < 0.001 + 0.001 * better).astype(np.float64)
    if kind == "revenue":
        amount = np.minimum(rng.lognormal(3.0, 1.0, ROWS), 500.0)
        return np.where(rng.random(ROWS) < 0.03 * (1.0 + better), amount, 0.0)
    if kind == "costs":
        return -rng.gamma(2.0, 3.0 - better, ROWS)
    return np.clip(np.rint(rng.normal(3.0 + better, 1.0, ROWS)), 1.0, 5.0)


@pytest.fixture(scope="module", autouse=True)
def _forgotten() -> Iterator[None]:
    yield
    for held in (night, alarmed, rolled_out):
        held.cache_clear()


class Night(NamedTuple):
    """The stages of one night."""

    loop: LoopSettings
    data: Data
    reward: Range
    oracle: Oracle
    tally: Tally
    held: Interactions
    scores: Floats


@cache
def night(kind: str, times: float, plus: float, oracle: str = "logistic") -> Night:
    rng = np.random.default_rng(7)
    context, chosen = rng.integers(0, len(CONTEXTS), ROWS), rng.integers(0, len(ACTIONS), ROWS)
    reward = times * rewards(kind, (chosen == context % 3).astype(np.float64)) + plus
    loop = parse_loop(
        f"[reward]\ndefault = {plus}\n[training]\nsample = 1500\n[policy]\noracle = '{oracle}'", "loop", {}
    )
    with TemporaryDirectory() as folder:
        lake = Lake(Path(folder))
        ts = START_US + np.arange(ROWS) * 10_000_000
        row = {"contexts": CONTEXTS, "context": context, "actions": ACTIONS, "chosen": chosen}
        append(lake, [rows_of("loop", ts=ts, reward=reward, default=plus, **row)])
        found = window(lake, loop)
        _, model, tally = learned(found.chunks(), configuration(loop, Variant(), 3, found.reward), [])
        held = to_interactions(found.holdout)
    return Night(loop, found.data, found.reward, model, tally, held, model.predict(held.batch))


def under(of: Night, rule: str) -> LoopSettings:
    return msgspec.structs.replace(of.loop, policy=msgspec.structs.replace(of.loop.policy, exploration=rule))


def pmf_of(of: Night, rule: str) -> Floats:
    made = exploration_of(under(of, rule), of.tally.effective_rows, of.reward)
    return OraclePolicy(of.oracle, made).pmf(of.held.batch)


def served(of: Night, rule: str) -> OraclePolicy:
    made = configuration(of.loop, Variant(), 3, of.reward)
    return scheduled_policy(under(of, rule), made, of.oracle, of.tally, (of.held, np.zeros(len(of.held), np.int64)))


@pytest.mark.parametrize(("times", "plus"), [*TIMES, *MOVED])
@pytest.mark.parametrize("kind", KINDS)
def test_a_training_reads_the_same_rows_and_their_range_moves_with_them(kind: str, times: float, plus: float) -> None:
    one, other = night(kind, 1.0, 0.0), night(kind, times, plus)
    assert (other.reward.low, other.reward.high) == pytest.approx(
        (times * one.reward.low + plus, times * one.reward.high + plus), rel=1e-12
    )
    ranges = {"reward_low": 0.0, "reward_high": 1.0}
    assert msgspec.structs.replace(one.data, **ranges) == msgspec.structs.replace(other.data, **ranges)
    assert other.tally.effective_rows == pytest.approx(one.tally.effective_rows, rel=1e-9)
    assert msgspec.to_builtins(other.tally.balance()) == pytest.approx(
        msgspec.to_builtins(one.tally.balance()), rel=1e-9
    )


@pytest.mark.parametrize(("times", "plus"), [*TIMES, *MOVED])
@pytest.mark.parametrize("kind", KINDS)
def test_predictions_and_losses_are_those_of_before_in_the_new_unit(kind: str, times: float, plus: float) -> None:
    one, other = night(kind, 1.0, 0.0), night(kind, times, plus)
    span = one.reward.high - one.reward.low
    assert (other.scores - plus) / times == pytest.approx(one.scores, abs=1e-9 * span)
    losses = [weighted_log_loss(of.scores[of.held.chosen], of.held, of.reward) for of in (one, other)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-9)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("times", "plus"), [*TIMES, *MOVED])
@pytest.mark.parametrize("kind", KINDS)
def test_probabilities_are_those_of_before(kind: str, times: float, plus: float, rule: str) -> None:
    one, other = night(kind, 1.0, 0.0), night(kind, times, plus)
    assert pmf_of(other, rule) == pytest.approx(pmf_of(one, rule), abs=1e-9)


@pytest.mark.parametrize("rule", BY_NOISE)
@pytest.mark.parametrize(("times", "plus"), [*TIMES, *MOVED])
@pytest.mark.parametrize("kind", KINDS)
def test_probabilities_by_the_measured_noise_are_those_of_before(
    kind: str, times: float, plus: float, rule: str
) -> None:
    one, other = night(kind, 1.0, 0.0), night(kind, times, plus)
    was, now = served(one, rule), served(other, rule)
    assert now.exploration.sigma == pytest.approx(times * was.exploration.sigma, rel=1e-9)
    assert now.pmf(other.held.batch) == pytest.approx(was.pmf(one.held.batch), abs=1e-9)


@pytest.mark.parametrize(("times", "plus"), [*TIMES, *MOVED])
@pytest.mark.parametrize("kind", KINDS)
def test_the_gate_passes_the_same_verdict(kind: str, times: float, plus: float) -> None:
    one, other = (verdict(night(kind, *unit)) for unit in ((1.0, 0.0), (times, plus)))
    assert (other.promote, other.proven) == (one.promote, one.proven)
    assert other.promote == (kind in ("costs", "stars"))
    for name in ("predicted", "alpha", "likely", "ess"):
        assert other.numbers[name] == pytest.approx(one.numbers[name], rel=1e-6), name
    for name in ("lift", "lower_bound", "kept_lower_bound", "margin"):
        assert other.numbers[name] / times == pytest.approx(one.numbers[name], rel=1e-6, abs=1e-12), name


def verdict(of: Night) -> Verdict:
    """The verdict on the policy that the night trained, against one that prefers what is never the better action."""
    n, policy = len(of.held), served(of, "epsilon_greedy")
    uniform = np.full(n * len(ACTIONS), 1.0 / len(ACTIONS))
    better = [round(10.0 * dict(context)["x"]) % 3 for context in of.held.batch.contexts]
    other = np.full((n, len(ACTIONS)), 0.1)
    other[np.arange(n), (np.array(better) + 1) % 3] = 0.8
    asked = Question(
        policy=policy,
        seen=lambda table, log: log,
        references={"other": lambda table, log: other.ravel()},
        baseline=("uniform", lambda table, log: uniform),
        drawn={},
        share=0.05,
        reward=of.reward,
    )
    over = sums_of(pa.table({}), of.held, asked, Latest(n)).compared["other"]
    assert over.kept is not None
    score = over.score(policy.exploration.sigma)
    reference = Reference("other", over.lift.estimate, over.kept.estimate, over.switched.estimate, score)
    return judge([reference], alpha=0.05, minimum_ess=50.0)


@pytest.mark.parametrize(("times", "plus"), [*TIMES, *MOVED])
@pytest.mark.parametrize("kind", ["revenue", "costs", "stars"])
def test_a_fall_of_the_rewards_raises_the_same_alarms(kind: str, times: float, plus: float) -> None:
    one, other = alarmed(kind, 1.0, 0.0), alarmed(kind, times, plus)
    assert [alarm.kind for alarm in other.alarms] == [alarm.kind for alarm in one.alarms]
    assert "value" in [alarm.kind for alarm in one.alarms]
    assert other.value is not None
    assert (other.value - plus) / times == pytest.approx(one.value, rel=1e-6)


@cache
def alarmed(kind: str, times: float, plus: float) -> Alarmed:
    late = np.arange(ROWS) >= ROWS // 2
    reward = times * rewards(kind, np.where(late, -0.9, 1.0)) + plus
    loop = parse_loop(f"[reward]\ndefault = {plus}", "loop", {})
    with TemporaryDirectory() as folder:
        lake, nowhere = Lake(Path(folder)), np.zeros(ROWS, np.int64)
        ts = START_US + np.arange(ROWS) * 10_000_000
        row = {"contexts": CONTEXTS, "context": nowhere, "actions": ACTIONS, "chosen": np.arange(ROWS) % len(ACTIONS)}
        append(lake, [rows_of("loop", ts=ts, reward=reward, default=plus, **row)])
        return alarms(lake, loop, [], seed=1)


@pytest.mark.parametrize(("times", "plus"), [*TIMES, *MOVED])
def test_the_guard_serves_the_same_weights_and_its_detector_sees_the_same(times: float, plus: float) -> None:
    (one, weights), (other, moved) = rolled_out(1.0, 0.0), rolled_out(times, plus)
    assert moved == weights
    assert weights[0] < max(weights) < 1.0
    for name, part in one.parts.items():
        assert other.parts[name].drift == pytest.approx(part.drift, abs=1e-6)
        assert other.parts[name].sums is not None


@cache
def rolled_out(times: float, plus: float) -> tuple[GuardState, list[float]]:
    """A candidate that is three times as good, in ten looks; the range is learned from rewards of before."""
    rng, loop = np.random.default_rng(5), parse_loop(f"[reward]\ndefault = {plus}", "loop", {})
    baseline, candidate, rate = np.array([0.6, 0.2, 0.2]), np.array([0.1, 0.1, 0.8]), np.array([0.1, 0.1, 0.5])

    def amounts(n: int) -> Floats:
        return np.minimum(rng.lognormal(3.0, 0.5, n), 100.0)

    before = times * amounts(1_000) + plus
    terms = terms_of(loop, Range(low=plus, high=float(before.max())))
    started = GuardState(loop="loop", baseline_version="1", candidate_version="2", terms=terms)
    state, weights = weighed(begun(started, attempt=1, version=1, reason=""), 1.0), list[float]()
    for _ in range(10):
        weights.append(state.weight)
        mixture = (1.0 - state.weight) * baseline + state.weight * candidate
        action = rng.choice(len(ACTIONS), rules_in(state).batch, p=mixture)
        reward = times * np.where(rng.random(action.size) < rate[action], amounts(action.size), 0.0) + plus
        scaled = np.clip((reward - terms.minimum) / (terms.maximum - terms.minimum), 0.0, 1.0)
        share = np.full(action.size, state.weight)
        segment = np.full(action.size, "")
        rows = Rows(scaled, (candidate / mixture)[action], (baseline / mixture)[action], share, segment)
        state = weighed(folded(state, rows), 1.0)
    return state, [*weights, state.weight]


@pytest.mark.parametrize(("times", "plus"), [*TIMES, *MOVED])
@pytest.mark.parametrize("kind", KINDS)
def test_health_is_that_of_before(kind: str, times: float, plus: float) -> None:
    def of(found: Night) -> Health:
        return health(found.held, pmf_of(found, "epsilon_greedy"), found.scores, nothing=found.loop.reward.default)

    one, other = of(night(kind, 1.0, 0.0)), of(night(kind, times, plus))
    assert other.alarms == one.alarms
    assert ("one-sided" in " ".join(one.alarms)) == (kind == "clicks")  # costs and stars are on one side of 0, and vary
    for name in ("positive_rate", "entropy", "logged_entropy", "effective_sample_size", "uniform_rows"):
        assert getattr(other, name) == pytest.approx(getattr(one, name), rel=1e-9), name
    span = np.ptp(night(kind, 1.0, 0.0).scores)
    assert (other.mean_reward - plus) / times == pytest.approx(one.mean_reward, abs=1e-9 * span)
    assert (other.calibration_error or 0.0) / times == pytest.approx(one.calibration_error, abs=1e-9 * span)


@pytest.mark.parametrize(("times", "plus"), [*TIMES, *MOVED])
@pytest.mark.parametrize("kind", KINDS)
def test_guard_gathers_the_same_evidence_without_bounds_in_the_settings(kind: str, times: float, plus: float) -> None:
    rules, found = GuardRules(), []
    for of in (night(kind, 1.0, 0.0), night(kind, times, plus)):
        terms = terms_of(of.loop, of.reward)
        reward = np.clip((of.held.reward - terms.minimum) / (terms.maximum - terms.minimum), 0.0, 1.0)
        baseline, candidate = 1.0 / len(ACTIONS), np.where(of.held.chosen % 3 == 0, 0.8, 0.1)
        served = 0.95 * baseline + 0.05 * candidate
        found.append(evidence_of(reward, candidate / served, baseline / served, np.full(reward.size, 0.05), rules))
    one, other = found
    assert certified_rung(one, rules) == certified_rung(other, rules)
    for name in ("ladder", "futility", "promotion"):
        assert log_mean_wealth(getattr(other, name)) == pytest.approx(log_mean_wealth(getattr(one, name)), abs=1e-9), (
            name
        )


@pytest.mark.parametrize("oracle", ["linear", "vw"])
@pytest.mark.parametrize(("times", "plus"), TIMES)
def test_other_oracles_predict_the_same_in_the_new_unit(oracle: str, times: float, plus: float) -> None:
    one, other = night("revenue", 1.0, 0.0, oracle), night("revenue", times, plus, oracle)
    span = one.reward.high - one.reward.low
    assert other.scores / times == pytest.approx(one.scores, abs=1e-6 * span)
