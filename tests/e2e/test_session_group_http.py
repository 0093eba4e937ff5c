"""A group that no training saw, served over HTTP: it is embedded by itself, and gets its own inference."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from decision.artifact import Manifest, pack, unpack
from decision.exploration.rule import Exploration
from decision.oracles.session import SessionOracle
from decision.policy import OraclePolicy
from pipelines.operations.processes import free_port, process, serve_command, wait_until_ready
from pipelines.registry.registry import Registry
from pipelines.settings import load_settings
from serving.explaining.explain import batch_of
from tests.e2e.test_session_http import TEXT, post, recorded
from tests.parts import require
from tests.worlds.synthetic import new_loop, new_settings

require(importlib.util.find_spec("torch"), "torch is not installed")

from simulators.environments.lts.env import draw_users  # noqa: E402 torch, as the next two
from simulators.learned.ensembles import fit_ensemble  # noqa: E402
from simulators.learned.logs import logged  # noqa: E402
from simulators.trainers.clone import train  # noqa: E402
from simulators.trainers.contract import Plan  # noqa: E402
from simulators.trainers.grouped import FEWEST, groups_of  # noqa: E402

CITIES, TRAINED, FEW = {"Oslo": 6.0, "Rome": 9.0, "Cork": 19.0, "Nome": 14.0}, 24, 8
NEW = "Nome"


def taught() -> SessionOracle:
    """Return a policy taught on the users of three cities, which has met a few users of a fourth."""
    users = draw_users(np.random.default_rng(0), np.array(list(CITIES.values())), TRAINED)
    log = logged(users, 0, horizon=10)
    log = replace(log, groups=users.group, group_names=tuple(CITIES), grouped_by="city")
    kept = np.flatnonzero((users.group < len(CITIES) - 1) | (np.arange(len(users)) % TRAINED < FEW))
    log = log.take(kept)
    assert FEW < FEWEST <= TRAINED
    assert [log.group_names[code] for code in groups_of(log)] == [name for name in CITIES if name != NEW]
    return train(log, fit_ensemble(log, 0, members=2, steps=1), Plan(effort=0.02), 0).oracle(log)


@pytest.mark.connected
def test_a_city_that_no_training_saw_is_answered_by_its_own_embedding(tmp_path: Path) -> None:
    oracle = taught()
    assert set(oracle.settings.groups) == set(CITIES)
    rows = np.array([oracle.settings.groups[name] for name in CITIES])
    assert len(np.unique(rows.round(6), axis=0)) == len(CITIES)
    new_settings(tmp_path)
    settings = load_settings({}, home=str(tmp_path), port=free_port(), reload_s=0.2)
    new_loop(settings, "feed", TEXT)
    rule = Exploration(kind="softmax", inverse_temperature=1.0, floor=0.03)
    at = "2026-01-01T00:00:00+00:00"
    manifest = Manifest(loop="feed", oracle="session", exploration=rule, seed=0, code_version="test", created_at=at)
    registry = Registry(settings)
    version = registry.register("feed", pack(OraclePolicy(oracle, rule), manifest))
    verdict = {"verdict": "promoted", "reasons": ["a test"], "numbers": {}, "at": at, "by": "a test"}
    registry.set_alias("feed", "champion", version, verdict, expected=None)  # type: ignore[arg-type]
    policy, _ = unpack(registry.files("feed", version))
    contexts = {name: {"city": name} for name in CITIES} | {"nowhere": {"city": "Atlantis"}, "silent": {}}
    actions = [{"id": name} for name in oracle.settings.actions]
    output = tmp_path / "service.log"
    with process("service", serve_command(settings), settings, output) as running:
        wait_until_ready(running, settings, output)
        for step in range(3):
            for name, context in contexts.items():
                body = {"event_id": f"{name}-{step}", "subject_id": name, "context": context, "actions": actions}
                post(settings, "decide", body)
                post(settings, "outcomes", {"event_id": f"{name}-{step}", "value": 3.0})
    records = {record.event_id: record for record in recorded(settings)}
    assert len(records) == 3 * len(contexts)
    for record in records.values():
        assert record.policy_version == version
        assert policy.pmf(batch_of(record)).tolist() == record.pmf
        assert record.propensity == record.pmf[record.action_index]
    first = {name: tuple(records[f"{name}-0"].pmf) for name in contexts}
    assert len({first[name] for name in CITIES}) == len(CITIES)
    assert first["nowhere"] == first["silent"]  # of a city that the version does not know it takes the mean
    assert first[NEW] != first["nowhere"]
