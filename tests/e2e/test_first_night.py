"""What a newcomer does in the first hour: the README's own request over HTTP, outcomes, a night, what was learned."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from decision.records import decode_decision
from pipelines.nightly import nightly
from pipelines.operations.installation import Installation
from pipelines.runs import Run
from pipelines.settings import Settings
from serving.core import Core
from serving.http.app import App
from serving.start import open_core
from tests.worlds.synthetic import new_settings

QUESTION: dict[str, Any] = {"context": {"hour": 9}, "actions": [{"id": "a"}, {"id": "b"}]}
PAYS = {"a": 0.1, "b": 0.9}
N, AT_ONCE = 1_500, 100


class Caller:
    """An application that asks in batches and reports what happened, without a socket."""

    def __init__(self, core: Core) -> None:
        self.core, self.app = core, App(lambda: core)

    def __call__(self, path: str, body: Any = None) -> Any:
        async def call() -> httpx.Response:
            transport = httpx.ASGITransport(app=self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
                if body is None:
                    return await client.get(f"/v1/loops/news{path}")
                return await client.post(f"/v1/loops/news{path}", content=json.dumps(body))

        response = asyncio.run(call())
        assert response.status_code in (200, 202), response.text
        return response.json()

    def live_a_day(self, rng: np.random.Generator, n: int = N) -> list[dict[str, Any]]:
        """Return the answers to `n` requests of the README, each of whose outcomes was reported."""
        found: list[dict[str, Any]] = []
        for _ in range(n // AT_ONCE):
            answers = self("/decide/batch", {"decisions": [QUESTION] * AT_ONCE})["decisions"]
            happened = [a for a in answers if rng.random() < PAYS[a["action_id"]]]
            self("/outcomes", [{"event_id": a["event_id"], "value": 1} for a in happened])
            found += answers
        return found

    def probability(self, action_id: str) -> float:
        ranking = self("/decide", QUESTION)["ranking"]
        return next(entry["probability"] for entry in ranking if entry["id"] == action_id)


@contextmanager
def served(home: Path, text: str) -> Iterator[tuple[Settings, Caller]]:
    home.mkdir(exist_ok=True)
    settings = new_settings(home)
    path = settings.loop_path("news")
    path.parent.mkdir(parents=True)
    path.write_text(text)
    core = open_core(settings)
    try:
        yield settings, Caller(core)
    finally:
        core.close()


def night(settings: Settings, caller: Caller) -> Run:
    """Run the night that follows, and let the service see what came of it."""
    with Installation(settings) as parts:
        loop = parts.loop("news")
        now = datetime.now(UTC) + timedelta(seconds=2 * loop.reward.window_s)
        run = nightly(settings, parts.log, parts.lake, parts.registry, loop, now=now)
    caller.core.loops.refresh()
    return run


def records(settings: Settings, caller: Caller, answers: list[dict[str, Any]]) -> list[Any]:
    return [
        decode_decision(message.value)
        for answer in answers
        for message in caller.core.spool.find("decisions", answer["event_id"].encode())
    ]


def test_the_readme_s_own_request_learns_in_one_night(tmp_path: Path) -> None:
    with served(tmp_path, "") as (settings, caller):
        caller.live_a_day(np.random.default_rng(1))
        run = night(settings, caller)
        assert (run.status, run.verdict) == ("done", "promoted")
        assert caller.probability("b") > 0.8


def test_a_first_action_baseline_is_left_as_soon_as_the_holdout_knows_enough_of_the_others(tmp_path: Path) -> None:
    """A tenth of the draws are of b: the gate asks for 50 effective rows of it, which the second day's holdout has."""
    with served(tmp_path, '[baseline]\nkind = "first"\n') as (settings, caller):
        rng = np.random.default_rng(1)
        for _ in range(3):
            caller.live_a_day(rng)
            if night(settings, caller).verdict == "promoted":
                break
        assert caller.probability("b") > 0.8


@pytest.mark.parametrize("explore", [0.2, 0.5])
def test_a_first_action_baseline_explores_from_the_first_request_at_the_stated_probability(
    tmp_path: Path, explore: float
) -> None:
    with served(tmp_path, f'[baseline]\nkind = "first"\nexplore = {explore}\n') as (settings, caller):
        answers = caller.live_a_day(np.random.default_rng(2), 600)
        wanted = [1.0 - explore / 2.0, explore / 2.0]
        for record in records(settings, caller, answers):
            assert record.pmf == pytest.approx(wanted, abs=1e-15)
            assert record.propensity == record.pmf[record.action_index]
            assert (record.pmf_baseline, record.policy_version) == ([1.0, 0.0], "baseline:first")
        second = sum(answer["action_id"] == "b" for answer in answers)
        spread = (600 * wanted[0] * wanted[1]) ** 0.5
        assert abs(second - 600 * wanted[1]) < 4.0 * spread  # 6e-5


@pytest.mark.parametrize("mode", ["apprentice", "logging_only"])
def test_modes_that_return_the_baseline_never_explore(tmp_path: Path, mode: str) -> None:
    with served(tmp_path, f'mode = "{mode}"\n[baseline]\nkind = "first"\n') as (_, caller):
        answers = caller.live_a_day(np.random.default_rng(3), 200)
        assert {(answer["action_id"], answer["propensity"]) for answer in answers} == {("a", 1.0)}


def test_an_apprentice_returns_the_first_action_unless_its_loop_says_otherwise(tmp_path: Path) -> None:
    with served(tmp_path, 'mode = "apprentice"\n') as (_, caller):
        assert caller.probability("a") == 1.0
    with served(tmp_path / "other", 'mode = "apprentice"\n[baseline]\nkind = "uniform"\n') as (_, caller):
        assert caller.probability("a") == 0.5


def test_an_apprentice_is_told_how_often_it_would_have_done_the_same(tmp_path: Path) -> None:
    """The application shows a alone: the interval says how sure the figure is, whatever it comes to."""
    with served(tmp_path, 'mode = "apprentice"\n') as (settings, caller):
        assert caller("")["agreement"] is None
        caller.live_a_day(np.random.default_rng(4), 600)
        result = night(settings, caller).result("evaluate")
        assert result is not None
        found = result["agreement"]
        assert caller("")["agreement"] == found
        assert (found["version"], found["decisions"]) == ("1", result["rows"])
        assert 0.0 <= found["low"] <= found["share"] <= found["high"] <= 1.0


def test_a_uniform_baseline_answers_as_it_did(tmp_path: Path) -> None:
    with served(tmp_path, "") as (settings, caller):
        (record,) = records(settings, caller, [caller("/decide", QUESTION)])
        assert record.pmf == record.pmf_baseline == [0.5, 0.5]
        assert record.policy_version == "baseline:uniform"
