"""The contract suites, run on every implementation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from decision import options
from decision.batch import Floats, Interactions
from decision.exploration.rule import Exploration, rule_of
from decision.ope import estimators
from decision.ope.estimators.cab import cab_sums
from decision.ope.estimators.clipped import clipped_sums
from decision.ope.estimators.cressie_read import CressieReadSums, cressie_read
from decision.ope.estimators.direct_method import direct, direct_sums
from decision.ope.estimators.dr import dr, dr_sums
from decision.ope.estimators.dros import shrinkage_sums
from decision.ope.estimators.ips import ips, ips_sums
from decision.ope.estimators.lift import lift_of, switched_lift_of
from decision.ope.estimators.mips import mips_sums, offcem_sums
from decision.ope.estimators.mrdr import mrdr_row_weights
from decision.ope.estimators.replay_method import MatchingSums, matching
from decision.ope.estimators.sndr import SndrSums, sndr
from decision.ope.estimators.snips import SnipsSums, snips
from decision.ope.estimators.switch_dr import switch_sums
from decision.ope.rows import Rows
from decision.ope.sequential.slates import cascade_terms, independent_terms, pseudo_inverse_terms, whole_terms
from decision.ope.sequential.trajectories import pdis_terms, trajectory_dr_terms, trajectory_sums
from decision.ope.sums.means import MeanSums
from decision.ope.weights import weights_of
from decision.oracles.ensemble import EnsembleOracle
from decision.oracles.factory import new_oracle
from decision.oracles.gradient_boosting import GradientBoostingOracle, GradientBoostingSettings
from decision.oracles.kind import OracleSettings
from decision.oracles.linear import LinearOracle, LinearSettings
from decision.oracles.logistic import LogisticOracle, LogisticSettings
from decision.oracles.neural import NeuralOracle, NeuralSettings
from decision.oracles.vw import VwOracle, VwSettings
from decision.policy import FirstPolicy, OraclePolicy, UniformPolicy
from tests.contracts import estimator as estimator_contract
from tests.contracts import oracle as oracle_contract
from tests.contracts import policy as policy_contract
from tests.contracts import rule as rule_contract
from tests.strategies import interactions_of


def _mean(sums: Callable[[Rows], MeanSums]) -> estimator_contract.Estimator:
    return estimator_contract.Estimator(lambda *given: sums(Rows.of(*given)), lambda s, *, level: s.estimate(level))


ESTIMATORS = {
    "ips": estimator_contract.Estimator(lambda log, pmf, _: ips_sums(weights_of(log, pmf), log.reward), ips),
    "snips": estimator_contract.Estimator(lambda log, pmf, _: SnipsSums.of(weights_of(log, pmf), log.reward), snips),
    "dr": estimator_contract.Estimator(dr_sums, dr),
    "clipped": _mean(lambda rows: clipped_sums(rows, 10.0)),
    "switch": _mean(lambda rows: switch_sums(rows, 10.0)),
    "shrinkage": _mean(lambda rows: shrinkage_sums(rows, 1e4)),
    "cab": _mean(lambda rows: cab_sums(rows, 10.0)),
    "mips": _mean(lambda rows: mips_sums(rows, np.arange(len(rows.target)))),
    "offcem": _mean(lambda rows: offcem_sums(rows, np.arange(len(rows.target)))),
    "sndr": estimator_contract.Estimator(lambda *given: SndrSums.of(Rows.of(*given)), sndr),
    "cressie_read": estimator_contract.Estimator(
        # The contract scales rewards up to 50 and weights up to 2.25.
        lambda *given: CressieReadSums.of(
            Rows.of(*given), low=0.0, high=max(1.0, 50.0 * (given[0].reward > 1).any()), largest=2.25
        ),
        cressie_read,
    ),
}


def _steps(terms: Callable[..., Floats]) -> estimator_contract.Estimator:
    """Return an estimator of slates or trajectories on decisions: each is a slate, or a trajectory, of its own."""

    def sums(log: Interactions, pmf: Floats, expected: Floats) -> MeanSums:
        rows = Rows.of(log, pmf, expected)
        alone = np.arange(len(rows) + 1)
        return trajectory_sums(terms(rows, alone), rows.weight, alone)

    return estimator_contract.Estimator(sums, lambda s, *, level: s.estimate(level))


ESTIMATORS |= {
    "whole_slate": _steps(lambda rows, alone: whole_terms(rows.weight, rows.reward, alone)),
    "cascade": _steps(lambda rows, alone: cascade_terms(rows.weight, rows.reward, alone)),
    "independent": _steps(lambda rows, alone: independent_terms(rows.weight, rows.reward, alone)),
    "pseudo_inverse": _steps(lambda rows, alone: pseudo_inverse_terms(rows.weight, rows.reward, alone)),
    "pdis": _steps(lambda rows, alone: pdis_terms(rows.weight, rows.reward, alone)),
    "trajectory_dr": _steps(
        lambda rows, alone: trajectory_dr_terms(rows.weight, rows.reward, rows.fitted, rows.direct, alone)
    ),
    # DR with the model that MRDR's row weights fit: here a constant, their weighted mean of the rewards.
    "mrdr": estimator_contract.Estimator(lambda log, pmf, _: dr_sums(log, pmf, _mrdr_model(log, pmf)), dr),
}
ADDS_UP = {
    # What is estimated, or what the interval leaves out, differs from the others: these add up as all do.
    "direct_method": estimator_contract.Estimator(lambda *given: direct_sums(Rows.of(*given)), direct),
    "lift": estimator_contract.Estimator(lambda log, pmf, q: lift_of(log, pmf, log.pmf, q).sums, dr),
    "switched_lift": estimator_contract.Estimator(lambda log, pmf, q: switched_lift_of(log, pmf, log.pmf, q).sums, dr),
    "replay_method": estimator_contract.Estimator(lambda *given: MatchingSums.of(Rows.of(*given)), matching),
}


def _mrdr_model(log: Interactions, pmf: Floats) -> Floats:
    """Return a constant model, fitted to a log of its own so that shards share it."""
    other = estimator_contract.world_of(np.random.default_rng(12), 500)
    weight = mrdr_row_weights(Rows.of(other.log, other.pmf))
    scale = 50.0 if (log.reward > 1).any() else 1.0
    return np.full(len(log.batch.actions), scale * float(weight @ other.log.reward / weight.sum()))


ORACLES = {
    "vw": ("vw", lambda: VwOracle(VwSettings(bits=16))),
    "vw_squared": ("vw", lambda: VwOracle(VwSettings(bits=16, logistic=False))),
    "vw_passes": ("vw", lambda: VwOracle(VwSettings(bits=16, passes=3, seed=7))),
    "vw_main_effects": ("vw", lambda: VwOracle(VwSettings(bits=16, interactions=False, learning_rate=0.2))),
    "linear": ("linear", LinearOracle),
    "linear_main_effects": ("linear", lambda: LinearOracle(LinearSettings(interactions=False))),
    "logistic": ("logistic", LogisticOracle),
    "logistic_main_effects": ("logistic", lambda: LogisticOracle(LogisticSettings(interactions=False))),
    "lightgbm": ("lightgbm", lambda: GradientBoostingOracle(GradientBoostingSettings(rounds=60))),
    "neural": ("neural", lambda: NeuralOracle(NeuralSettings(hidden=16, steps=150))),
    "bag": ("ensemble", lambda: new_oracle(OracleSettings(kind="logistic", bag=3, seed=4))),
    "average": ("ensemble", lambda: EnsembleOracle([("linear", LinearOracle()), ("logistic", LogisticOracle())])),
}


@pytest.mark.parametrize("check", oracle_contract.CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", ORACLES)
def test_oracle_contract(name: str, check) -> None:
    kind, make = ORACLES[name]
    check(make, kind)


def policies():
    oracle = LogisticOracle()
    oracle.fit(interactions_of(np.random.default_rng(5)))
    yield "uniform", UniformPolicy()
    yield "first", FirstPolicy()
    for kind in options.RULES:
        yield kind, OraclePolicy(oracle, Exploration(kind=kind, gamma=50.0, rows=500.0))
    yield "cold", OraclePolicy(LinearOracle(), Exploration())


@pytest.mark.parametrize("check", policy_contract.CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize(("name", "policy"), list(policies()))
def test_policy_contract(name: str, policy, check) -> None:
    check(policy, interactions_of(np.random.default_rng(3), 20).batch)


@pytest.mark.parametrize("check", estimator_contract.CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", ESTIMATORS)
def test_estimator_contract(name: str, check) -> None:
    check(ESTIMATORS[name])


@pytest.mark.parametrize("check", estimator_contract.ADDITIVE, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", ADDS_UP)
def test_estimator_adds_up(name: str, check) -> None:
    if name == "direct_method" and check is estimator_contract.check_interval_tightens_with_data_and_widens_with_level:
        return  # it knows no error but the contexts', and those of the contract's world are all alike
    check(ADDS_UP[name])


def test_every_oracle_and_every_file_of_an_estimator_is_under_contract() -> None:
    """A new one cannot be forgotten: what the registry and the folder hold stands in the tables above."""
    assert {kind for kind, _ in ORACLES.values()} == {*options.ORACLES, "ensemble"}
    files = {path.stem for path in Path(estimators.__file__).parent.glob("*.py")} - {"__init__", "balanced"}
    called = {"cressie_read", "dros", "direct_method", "switch_dr", "replay_method"}
    names = {"dros": "shrinkage", "switch_dr": "switch"}
    listed = ESTIMATORS.keys() | ADDS_UP.keys()
    assert {names.get(stem, stem) for stem in files | called} <= listed


@pytest.mark.parametrize("check", rule_contract.CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("kind", options.RULES)
def test_exploration_rule_contract(kind: str, check) -> None:
    check(rule_of(kind))
