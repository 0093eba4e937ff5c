"""Rewards in another unit change nothing: the stages of a night on the same log, its rewards multiplied or shifted.

Each stage is asserted by itself: what a training reads, its model, the losses of variants, the probabilities, health,
and the guard's evidence. Only predictions and what is made of them are in the unit of the rewards.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import msgspec
import numpy as np
import pytest

from decision.batch import Floats, Interactions
from decision.generations import Tally
from decision.guard.evidence import certified_rung, evidence_of, log_mean_wealth
from decision.guard.rules import GuardRules
from decision.options import Range
from decision.policy import OraclePolicy
from decision.protocols import Oracle
from pipelines.evaluation.health import Health, health
from pipelines.guard.state import terms_of
from pipelines.interactions.arrays import to_interactions
from pipelines.lake.lake import Lake
from pipelines.settings import LoopSettings, Variant, parse_loop
from pipelines.training.train import exploration_of
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
    night.cache_clear()


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


def pmf_of(of: Night, rule: str) -> Floats:
    made = exploration_of(
        msgspec.structs.replace(of.loop, policy=msgspec.structs.replace(of.loop.policy, exploration=rule)),
        of.tally.effective_rows,
        of.reward,
    )
    return OraclePolicy(of.oracle, made).pmf(of.held.batch)


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
