"""A shop whose customers want one of three colours: policies that know it, and what every record has to hold."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from decision.artifact import Manifest, pack
from decision.batch import Batch, Interactions
from decision.draw import draw
from decision.exploration.rule import Exploration
from decision.oracles.linear import LinearOracle
from decision.policy import OraclePolicy
from decision.records import Decision
from pipelines.registry.registry import Registry
from tests.worlds.synthetic import KINDS, batch_of

PAYS = {"good": (0.8, 0.1), "bad": (0.1, 0.8)}
"""Mean reward of the right and of the wrong action, as the oracle of each candidate believes."""


def policy(believes: tuple[float, float], epsilon: float) -> OraclePolicy:
    """Return a policy that knows the right action of each kind, or takes the wrong ones for right."""
    rng = np.random.default_rng(0)
    kinds = [KINDS[int(i)] for i in rng.integers(3, size=600)]
    parts = [batch_of(kind) for kind in kinds]
    n, index = len(kinds), rng.integers(3, size=len(kinds))
    means = [believes[0] if KINDS[i] == kind else believes[1] for i, kind in zip(index, kinds, strict=True)]
    reward = (rng.random(n) < np.array(means)) * 1.0
    batch = Batch(
        [part.contexts[0] for part in parts],
        [action for part in parts for action in part.actions],
        list(KINDS) * n,
        np.arange(n + 1) * 3,
    )
    oracle = LinearOracle()
    oracle.fit(Interactions(batch, np.arange(n) * 3 + index, np.full(n, 1 / 3), reward, np.full(3 * n, 1 / 3)))
    return OraclePolicy(oracle, Exploration(kind="epsilon_greedy", epsilon=epsilon, floor=0.01))


def register(registry: Registry, made: OraclePolicy) -> str:
    """Register a policy of the loop ``shop`` and return its version."""
    manifest = Manifest(
        loop="shop",
        oracle="linear",
        exploration=made.exploration,
        seed=0,
        code_version="test",
        created_at="2026-01-01T00:00:00+00:00",
    )
    return registry.register("shop", pack(made, manifest))


def check_propensities(records: Iterable[Decision]) -> None:
    """Check that every logged propensity is that of its draw, from the mixture that the record tells of."""
    for record in records:
        assert record.propensity == record.pmf[record.action_index]
        assert draw(record.pmf, record.seed) == record.action_index
        if record.pmf_candidate is None:
            assert record.guard_weight == 0.0
            continue
        assert record.pmf_baseline is not None
        rho = record.guard_weight
        for p, b, c in zip(record.pmf, record.pmf_baseline, record.pmf_candidate, strict=True):
            assert abs(p - ((1 - rho) * b + rho * c)) < 1e-12
