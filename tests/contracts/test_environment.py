"""Every vector environment of the simulators keeps the contract, delays, outages and drift around one included."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from gymnasium.vector import VectorEnv

from simulators.environments.driver_programme import DriverProgrammeEnv, draw_drivers
from simulators.environments.lts.env import LtsEnv, draw_users
from simulators.environments.retention import RetentionEnv, RetentionRules, draw_items
from simulators.environments.wrappers import Delayed, Drifting, Outage
from tests.contracts.environment import CHECKS

ROOT = Path(__file__).resolve().parents[2]
USERS = draw_users(np.random.default_rng(0), np.array([14.0]), 25)
ITEMS = draw_items(np.random.default_rng(0), 200, 10)


def inside(choc: float = 14.0) -> LtsEnv:
    return LtsEnv(USERS.in_group(choc), horizon=20, noise=0.0)


ENVIRONMENTS: dict[type[VectorEnv], Callable[[], VectorEnv]] = {
    LtsEnv: lambda: LtsEnv(draw_users(np.random.default_rng(0), np.array([6.0, 21.0]), 20), horizon=30),
    RetentionEnv: lambda: RetentionEnv(ITEMS, 12, RetentionRules(slate=4, episode=20, slope=20.0)),
    DriverProgrammeEnv: lambda: DriverProgrammeEnv(draw_drivers(np.random.default_rng(0), 15)),
    Delayed: lambda: Delayed(inside(), 3),
    Outage: lambda: Outage(inside(), 0.3, 0),
    Drifting: lambda: Drifting(lambda episode: inside(14.0 + episode)),
}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("kind", ENVIRONMENTS, ids=lambda kind: kind.__name__)
def test_environment(kind: type[VectorEnv], check: Callable[[Callable[[], VectorEnv]], None]) -> None:
    check(ENVIRONMENTS[kind])


def test_no_environment_is_without_its_contract() -> None:
    """Every public class below gymnasium's `VectorEnv`, however deep, stands in the table above."""
    bases: dict[str, set[str]] = {}
    for file in (ROOT / "simulators").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ClassDef):
                bases[node.name] = {ast.unparse(base).rpartition(".")[2] for base in node.bases}
    found = {"VectorEnv"}
    while more := {name for name, above in bases.items() if above & found} - found:
        found |= more
    assert {name for name in found if not name.startswith("_")} == {"VectorEnv", *(k.__name__ for k in ENVIRONMENTS)}
