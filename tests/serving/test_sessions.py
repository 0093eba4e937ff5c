"""Memories of users: from decision and outcome on the log to the next answer, once each, across restarts."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
import pytest

from decision.artifact import Manifest, pack, unpack
from decision.draw import seed_of
from decision.exploration.rule import Exploration
from decision.policy import OraclePolicy
from decision.records import SCHEMA_VERSION, Decision, Outcome, decode_decision
from pipelines.log.sqlite.log import LocalLog
from pipelines.operations.waiting import wait_until
from pipelines.settings import load_settings
from serving.explaining.explain import batch_of
from serving.sessions import Sessions
from serving.start import open_core
from serving.wire import Action, DecideRequest, OutcomeRequest
from tests.decision.oracles.test_session import ACTIONS, oracle

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def decision(number: int, subject: str, action: int = 0) -> Decision:
    event = f"e{number}"
    return Decision(
        schema_version=SCHEMA_VERSION,
        loop="feed",
        event_id=event,
        ts=NOW,
        subject_id=subject,
        step=number,
        context=msgspec.Raw(b"{}"),
        actions=msgspec.Raw(b"[{},{},{}]"),
        action_ids=ACTIONS,
        pmf=[0.5, 0.25, 0.25],
        action_index=action,
        propensity=[0.5, 0.25, 0.25][action],
        policy_version="1",
        baseline_version="baseline:uniform",
        seed=seed_of("feed", event),
    )


def outcome(number: int, value: float) -> Outcome:
    return Outcome(schema_version=SCHEMA_VERSION, loop="feed", event_id=f"e{number}", value=value, ts=NOW)


def test_core_answers_with_a_session_policy_whose_next_answer_knows_the_last_outcome(tmp_path: Path) -> None:
    path = tmp_path / "loops" / "feed" / "loop.toml"
    path.parent.mkdir(parents=True)
    path.write_text("")
    settings = load_settings({}, home=str(tmp_path), reload_s=3600.0)
    core = open_core(settings)
    path.write_text("[reward]\nmaximum = 10.0\n")
    core.loops.refresh()
    rule = Exploration(kind="softmax", inverse_temperature=1.0, floor=0.03)
    manifest = Manifest(
        loop="feed", oracle="session", exploration=rule, seed=0, code_version="test", created_at=NOW.isoformat()
    )
    policy, _ = unpack(pack(OraclePolicy(oracle(), rule), manifest))
    snapshot = core.loops.get("feed")
    assert snapshot is not None
    # In charge without MLflow, whose import takes longer than everything here.
    snapshot = core.loops._snapshots["feed"] = replace(snapshot, policy=policy, policy_version="1")
    log = LocalLog(settings.spool_path)
    # Nothing was uploaded: memories are the only features.
    sessions = Sessions(settings, core.loops, log, lambda snapshot: None)
    core.features = sessions.source

    def ask(number: int) -> Decision:
        request = DecideRequest({}, [Action(name) for name in ACTIONS], subject_id="u", event_id=f"q{number}")
        asyncio.run(core.decide("feed", request))
        return decode_decision(core.spool.find("decisions", f"q{number}".encode())[0].value)

    first = ask(1)
    assert first.policy_version == "1"
    assert first.propensity == first.pmf[first.action_index] >= 0.03
    asyncio.run(core.report("feed", [OutcomeRequest("q1", 8.0)]))

    def remembered() -> bool:
        sessions.refresh()  # the service's own thread may have been quicker; the event counts once either way
        source = sessions.source(snapshot)
        return source is not None and source.online_many(["u"], datetime.now(UTC)) != [{}]

    wait_until(remembered, "the outcome in the memory")
    second = ask(2)
    known = oracle()
    state = known.advance(known.start(), ACTIONS[first.action_index], 8.0)
    assert msgspec.json.decode(second.feature_snapshot)["session"] == pytest.approx(state, abs=1e-6)
    assert second.pmf != first.pmf
    assert np.array_equal(policy.pmf(batch_of(second)), second.pmf)  # the record alone gives the answer again
    sessions.close()
    again = Sessions(settings, core.loops, log, lambda snapshot: None)  # a restart
    core.features = again.source
    assert ask(3).pmf == second.pmf
    again.close()
    log.close()
    core.close()
