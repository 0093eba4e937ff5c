"""The contract suites, run on every implementation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from decision.exploration.rule import Exploration
from decision.ope.estimators.cab import cab_sums
from decision.ope.estimators.clipped import clipped_sums
from decision.ope.estimators.cressie_read import CressieReadSums, cressie_read
from decision.ope.estimators.dr import dr, dr_sums
from decision.ope.estimators.dros import shrinkage_sums
from decision.ope.estimators.ips import ips, ips_sums
from decision.ope.estimators.mips import mips_sums, offcem_sums
from decision.ope.estimators.sndr import SndrSums, sndr
from decision.ope.estimators.snips import SnipsSums, snips
from decision.ope.estimators.switch_dr import switch_sums
from decision.ope.rows import Rows
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
    oracle = VwOracle(VwSettings(bits=14))
    oracle.fit(interactions_of(np.random.default_rng(5)))
    yield "uniform", UniformPolicy()
    yield "first", FirstPolicy()
    for kind in ("squarecb", "epsilon_greedy", "uniform"):
        yield kind, OraclePolicy(oracle, Exploration(kind=kind, gamma=50.0))
    yield "cold", OraclePolicy(LinearOracle(), Exploration())


@pytest.mark.parametrize("check", policy_contract.CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize(("name", "policy"), list(policies()))
def test_policy_contract(name: str, policy, check) -> None:
    check(policy, interactions_of(np.random.default_rng(3), 20).batch)


@pytest.mark.parametrize("check", estimator_contract.CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", ESTIMATORS)
def test_estimator_contract(name: str, check) -> None:
    check(ESTIMATORS[name])
