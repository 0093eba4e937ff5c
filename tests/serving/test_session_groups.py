"""A policy that sees its user's group answers with the embedding that its version holds; the record gives it again."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import numpy as np

from decision.artifact import Manifest, pack, unpack
from decision.exploration.rule import Exploration
from decision.policy import OraclePolicy
from decision.records import Decision, decode_decision
from pipelines.settings import load_settings
from serving.explaining.explain import batch_of
from serving.start import open_core
from serving.wire import Action, DecideRequest
from tests.decision.oracles.test_session import ACTIONS, grouped


def test_the_group_in_the_context_decides_and_the_record_alone_gives_the_answer_again(tmp_path: Path) -> None:
    path = tmp_path / "loops" / "feed" / "loop.toml"
    path.parent.mkdir(parents=True)
    path.write_text("[reward]\nmaximum = 10.0\n")
    core = open_core(load_settings({}, home=str(tmp_path), reload_s=3600.0))
    core.loops.refresh()
    rule = Exploration(kind="softmax", inverse_temperature=1.0, floor=0.03)
    manifest = Manifest(
        loop="feed", oracle="session", exploration=rule, seed=0, code_version="test", created_at="2026-01-01T00:00:00Z"
    )
    policy, _ = unpack(pack(OraclePolicy(grouped(), rule), manifest))
    snapshot = core.loops.get("feed")
    assert snapshot is not None
    core.loops._snapshots["feed"] = replace(snapshot, policy=policy, policy_version="1")
    contexts = ({"city": "Oslo"}, {"city": 7}, {"city": "Rome"}, {})

    def ask(number: int) -> Decision:
        request = DecideRequest(contexts[number], [Action(name) for name in ACTIONS], event_id=f"q{number}")
        asyncio.run(core.decide("feed", request))
        return decode_decision(core.spool.find("decisions", f"q{number}".encode())[0].value)

    records = [ask(number) for number in range(len(contexts))]
    core.close()
    for record in records:
        assert np.array_equal(policy.pmf(batch_of(record)), record.pmf)
    assert records[2].pmf == records[3].pmf  # neither is known: both have the mean
    assert len({tuple(record.pmf) for record in records}) == 3
