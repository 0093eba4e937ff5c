"""A model that learned under earlier rules of flattening is judged as it is served: with features read by its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from decision.artifact import Manifest, pack
from decision.batch import Batch, Floats, Interactions
from decision.exploration.rule import Exploration
from decision.features import VERSION, flatten
from decision.oracles.logistic import LogisticOracle
from decision.policy import OraclePolicy
from pipelines.evaluation.evaluate import evaluate
from pipelines.fairness.window import treatments
from pipelines.lake.lake import Lake
from pipelines.registry.registry import Registry
from pipelines.replay.policy import PolicySpec, spec_of
from pipelines.replay.replay import Options, replay_log
from pipelines.replay.source import source_of
from pipelines.settings import FairnessSettings
from pipelines.training.window import window
from tests.worlds.logged import DAY_US, START_US, append, rows_of
from tests.worlds.synthetic import new_loop, new_settings

CONTEXTS = [{"_side": side, "items": [{"qty": 1}, {"qty": qty}]} for side in (-1.0, 1.0) for qty in (0, 2)]
ACTIONS = [{"_left": 1.0, "n": 1}, {"_left": -1.0, "n": 1}]
N = 2_000


def rows() -> pa.Table:
    """Return a log in which the action on the context's hidden side pays."""
    rng = np.random.default_rng(1)
    context, chosen = rng.integers(0, len(CONTEXTS), N), rng.integers(0, 2, N)
    right = np.array([c["_side"] for c in CONTEXTS])[context] == np.array([a["_left"] for a in ACTIONS])[chosen]
    reward = (rng.random(N) < np.where(right, 0.8, 0.2)).astype(np.float64)
    ts = START_US + np.arange(N) * (DAY_US // N)
    return rows_of("shop", ts=ts, reward=reward, contexts=CONTEXTS, context=context, actions=ACTIONS, chosen=chosen)


def read(table: pa.Table, version: int) -> Batch:
    """Return what was asked, text by text."""
    contexts = [flatten(msgspec.json.decode(text), field="c", version=version) for text in table["context"].to_pylist()]
    actions = [flatten(action, field="a", version=version) for action in ACTIONS] * len(table)
    return Batch(contexts, actions, ["a0", "a1"] * len(table), np.arange(len(table) + 1) * 2)


def model(table: pa.Table, version: int) -> OraclePolicy:
    """Return a policy that learned from `table` under the rules of `version`."""
    oracle, n = LogisticOracle(), len(table)
    chosen = np.arange(n) * 2 + table["action_index"].to_numpy()
    reward = table["reward"].to_numpy().astype(np.float64)
    oracle.fit(Interactions(read(table, version), chosen, np.full(n, 0.5), reward, np.full(2 * n, 0.5)))
    rule = Exploration(kind="softmax", inverse_temperature=5.0)
    return OraclePolicy(oracle, rule, features_version=version)


def drawn(pmf: Floats, table: pa.Table) -> Floats:
    """Return [n] probabilities of the actions that were drawn."""
    return pmf.reshape(-1, 2)[np.arange(len(table)), table["action_index"].to_numpy()]


def packed(policy: OraclePolicy) -> dict[str, bytes]:
    manifest = Manifest(
        loop="shop",
        oracle="logistic",
        exploration=policy.exploration,
        seed=0,
        code_version="1",
        created_at="2026-01-01",
    )
    return pack(policy, manifest)


@pytest.mark.parametrize("version", [1, VERSION])
def test_replay_gate_and_panels_ask_a_model_as_it_is_asked_in_service(version: int, tmp_path: Path) -> None:
    settings, table = new_settings(tmp_path), rows()
    loop, registry, lake = new_loop(settings, "shop"), Registry(settings), Lake(settings.lake_url)
    append(lake, [table])
    policy = model(table, version)
    wanted = policy.pmf(read(table, version))
    assert (np.abs(wanted - 0.5).max() > 0.2) == (version == 1), "what is hidden decides under the former rules alone"

    ips = float(np.mean(drawn(wanted, table) / 0.5 * table["reward"].to_numpy()))
    specs = [spec_of(policy, "held"), PolicySpec(kind="version", name="files", files=packed(policy))]
    for spec, model_of_rewards in zip(specs, ("means", "logistic"), strict=True):
        options: Any = Options(reward_model=model_of_rewards, check=False, replicates=0)
        found = replay_log(source_of(lake, "shop"), spec, options, log="shop", generations={"1": spec})
        assert found.estimates["ips"] is not None
        assert found.estimates["ips"].value == pytest.approx(ips, abs=1e-9)

    number = registry.register("shop", packed(policy), metrics={}, params={}, tags={"kind": "policy"})
    held = window(lake, loop).holdout
    weight = drawn(policy.pmf(read(held, version)), held) / 0.5
    snips = float((weight * held["reward"].to_numpy()).sum() / weight.sum())
    (value,) = [value for value in evaluate(lake, registry, loop, number).values if value.role == "version"]
    assert value.snips is not None
    assert value.snips.value == pytest.approx(snips, abs=1e-9)

    treated = treatments(table, policy, FairnessSettings())
    first = treated[table["event_id"][0].as_py()]
    assert list(first.values()) == pytest.approx(wanted[:2].tolist(), abs=1e-12)
