"""Every oracle, exploration rule and policy keeps its contract."""

from __future__ import annotations

import numpy as np
import pytest

from decision import options
from decision.exploration.rule import Exploration, rule_of
from decision.oracles.ensemble import EnsembleOracle
from decision.oracles.factory import new_oracle
from decision.oracles.gradient_boosting import GradientBoostingOracle, GradientBoostingSettings
from decision.oracles.kind import OracleSettings
from decision.oracles.linear import LinearOracle, LinearSettings
from decision.oracles.logistic import LogisticOracle, LogisticSettings
from decision.oracles.neural import NeuralOracle, NeuralSettings
from decision.oracles.vw import VwOracle, VwSettings
from decision.policy import FirstPolicy, OraclePolicy, UniformPolicy
from tests.contracts import oracle as oracle_contract
from tests.contracts import policy as policy_contract
from tests.contracts import rule as rule_contract
from tests.strategies import interactions_of

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


def test_every_oracle_is_under_contract() -> None:
    """A new one cannot be forgotten: what the registry holds stands in the table above."""
    assert {kind for kind, _ in ORACLES.values()} == {*options.ORACLES, "ensemble"}


@pytest.mark.parametrize("check", rule_contract.CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("kind", options.RULES)
def test_exploration_rule_contract(kind: str, check) -> None:
    check(rule_of(kind))
