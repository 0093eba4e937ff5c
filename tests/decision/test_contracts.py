"""The contract suites, run on every implementation."""

from __future__ import annotations

import numpy as np
import pytest

from decision.ope.dr import dr, dr_sums
from decision.ope.ips import ips, ips_sums
from decision.ope.snips import SnipsSums, snips
from decision.ope.weights import weights_of
from decision.oracles.linear import LinearOracle, LinearSettings
from decision.oracles.vw import VwOracle, VwSettings
from decision.policy import Exploration, FirstPolicy, OraclePolicy, UniformPolicy
from tests.contracts import estimator as estimator_contract
from tests.contracts import oracle as oracle_contract
from tests.contracts import policy as policy_contract
from tests.strategies import interactions_of

ESTIMATORS = {
    "ips": estimator_contract.Estimator(lambda log, pmf, _: ips_sums(weights_of(log, pmf), log.reward), ips),
    "snips": estimator_contract.Estimator(lambda log, pmf, _: SnipsSums.of(weights_of(log, pmf), log.reward), snips),
    "dr": estimator_contract.Estimator(dr_sums, dr),
}
ORACLES = {
    "vw": ("vw", lambda: VwOracle(VwSettings(bits=16))),
    "vw_squared": ("vw", lambda: VwOracle(VwSettings(bits=16, logistic=False))),
    "vw_passes": ("vw", lambda: VwOracle(VwSettings(bits=16, passes=3, seed=7))),
    "vw_main_effects": ("vw", lambda: VwOracle(VwSettings(bits=16, interactions=False, learning_rate=0.2))),
    "linear": ("linear", LinearOracle),
    "linear_main_effects": ("linear", lambda: LinearOracle(LinearSettings(interactions=False))),
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
