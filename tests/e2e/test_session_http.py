"""A policy with memory over HTTP: the next answer knows the last outcome, and a kill -9 forgets nobody."""

from __future__ import annotations

import json
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from decision.artifact import Manifest, pack, unpack
from decision.exploration.rule import Exploration
from decision.oracles.session import SessionOracle
from decision.policy import OraclePolicy
from decision.records import Decision, decode_decision
from pipelines.log.sqlite.log import LocalLog
from pipelines.operations.processes import free_port, process, serve_command, wait_until_ready
from pipelines.registry.registry import Registry
from pipelines.settings import Settings, load_settings
from serving.explaining.explain import batch_of
from tests.decision.oracles.test_session import ACTIONS, oracle
from tests.e2e.test_kill_service import kill_all
from tests.worlds.synthetic import new_loop, new_settings

TEXT = "[reward]\nmaximum = 100.0\n"
USERS, MOST_PROBES = 4, 2_000


def post(settings: Settings, what: str, body: dict[str, Any]) -> dict[str, Any]:
    url = f"http://{settings.host}:{settings.port}/v1/loops/feed/{what}"
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=300) as response:
        return json.loads(response.read() or b"{}")


def recorded(settings: Settings) -> list[Decision]:
    """Return the decisions on the log in the order of their ids."""
    log = LocalLog(settings.spool_path)
    try:
        found = [
            decode_decision(message.value)
            for part in range(settings.partitions)
            for message in log.read("decisions", part, 0, max_messages=10_000)
        ]
    finally:
        log.close()
    return sorted(found, key=lambda record: record.event_id)


def memory(record: Decision) -> list[float]:
    return json.loads(bytes(record.feature_snapshot)).get("session", [])


def follow(settings: Settings, user: int, steps: range) -> list[tuple[str, float]]:
    """Ask for a user again and again, each time after the outcome before is known; return what happened to him."""
    seen: list[tuple[str, float]] = []
    for step in steps:
        event = f"u{user}-{step:02d}"
        body = {
            "event_id": event,
            "subject_id": f"u{user}",
            "context": {},
            "actions": [{"id": name} for name in ACTIONS],
        }
        answer = post(settings, "decide", body)
        reward = float(1 + (user + step) % 5)
        post(settings, "outcomes", {"event_id": event, "value": reward, "idempotency_key": event})
        seen.append((answer["action_id"], reward))
        wait_for_memory(settings, user, step, seen)
    return seen


def wait_for_memory(settings: Settings, user: int, step: int, seen: list[tuple[str, float]]) -> None:
    """Wait until a decision taken now was made with a memory of everything that `seen` ends with."""
    number = 0
    while True:
        probe = f"probe-{user}-{step:02d}-{number:03d}"
        body = {"event_id": probe, "subject_id": f"u{user}", "context": {}, "actions": [{"id": ACTIONS[0]}]}
        post(settings, "decide", body)
        held = next(record for record in recorded(settings) if record.event_id == probe)
        # The second number of a memory is the logarithm of the last reward, see `SessionOracle.advance`.
        if memory(held) and memory(held)[1] == pytest.approx(np.log(seen[-1][1]) - 1.5, abs=1e-5):
            return
        assert number < MOST_PROBES, "the outcome never reached the memory"
        number += 1
        time.sleep(0.05)


@pytest.mark.connected
def test_a_session_policy_answers_from_memory_and_a_kill_forgets_nobody(tmp_path: Path) -> None:
    new_settings(tmp_path)
    settings = load_settings({}, home=str(tmp_path), port=free_port(), reload_s=0.2)
    new_loop(settings, "feed", TEXT)
    rule = Exploration(kind="softmax", inverse_temperature=1.0, floor=0.03)
    manifest = Manifest(
        loop="feed",
        oracle="session",
        exploration=rule,
        seed=0,
        code_version="test",
        created_at="2026-01-01T00:00:00+00:00",
    )
    registry = Registry(settings)
    version = registry.register("feed", pack(OraclePolicy(oracle(), rule), manifest))
    verdict = {"verdict": "promoted", "reasons": ["a test"], "numbers": {}, "at": manifest.created_at, "by": "a test"}
    registry.set_alias("feed", "champion", version, verdict, expected=None)  # type: ignore[arg-type]
    policy, _ = unpack(registry.files("feed", version))
    assert isinstance(policy, OraclePolicy)
    assert isinstance(policy.oracle, SessionOracle)
    happened: dict[int, list[tuple[str, float]]] = {}
    for life, steps in enumerate((range(3), range(3, 6))):
        output = tmp_path / f"service-{life}.log"
        with process("service", serve_command(settings), settings, output) as running:
            wait_until_ready(running, settings, output)
            for user in range(USERS):
                happened[user] = happened.get(user, []) + follow(settings, user, steps)
            kill_all(tmp_path)
            running.wait(300)
    records = {record.event_id: record for record in recorded(settings)}
    for user, seen in happened.items():
        known = policy.oracle.start()
        for step, (action, reward) in enumerate(seen):
            record = records[f"u{user}-{step:02d}"]
            assert record.policy_version == version
            # In the second life the first three steps are remembered: exactly what the policy makes of them.
            assert memory(record) == pytest.approx(known.tolist() if step else [], abs=1e-5)
            assert policy.pmf(batch_of(record)).tolist() == record.pmf
            assert record.propensity == record.pmf[record.action_index]
            known = policy.oracle.advance(known, action, reward)
