"""What was erased is gone for whoever asks by its id: 410, not a fault, and no other decision takes its place."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from pipelines.log.sqlite.log import LocalLog
from serving.errors import ErasedDecisionError
from serving.problems import problem_of
from serving.start import open_core
from serving.wire import Action, DecideRequest, OutcomeRequest
from tests.worlds.synthetic import new_loop, new_settings


def test_an_erased_decision_is_gone(tmp_path: Path) -> None:
    settings = new_settings(tmp_path)
    new_loop(settings, "news", "")
    core = open_core(settings)
    request = DecideRequest({"age": 3}, [Action("a", {}), Action("b", {})], event_id="e1", subject_id="ann")
    try:
        asyncio.run(core.decide("news", request))
        asyncio.run(core.report("news", [OutcomeRequest("e1", 1.0)]))
        log = LocalLog(settings.spool_path)
        assert [log.redact(topic, [b"e1"]) for topic in ("decisions", "outcomes")] == [1, 1]
        log.close()
        for ask in (lambda: core.explain("e1"), lambda: asyncio.run(core.decide("news", request))):
            with pytest.raises(ErasedDecisionError, match="e1") as raised:
                ask()
            problem = problem_of(raised.value)
            assert problem is not None
            assert (problem.status, problem.problem.field) == (410, "event_id")
    finally:
        core.close()
