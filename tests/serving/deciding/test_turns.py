"""What is asked at the same time is decided together, and each answer is as if it came alone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from decision.batch import Batch, Features, Floats
from decision.errors import DecisionError, FieldError
from decision.policy import UniformPolicy
from decision.records import Decision, encode
from pipelines.settings import LoopSettings, load_settings
from serving.core import Core
from serving.deciding.decide import Ask, decide
from serving.deciding.question import Catalogues, question_of
from serving.errors import EventIdReusedError, UnavailableError
from serving.snapshot import Snapshot
from serving.start import open_core
from serving.wire import Action, DecideRequest, Slot
from tests.worlds.rollout import GuardedLoop

NOW = 1_800_000_000.0
TS = datetime(2027, 1, 15, tzinfo=UTC)
CATALOGUES = [[Action(name, {"kind": name}) for name in "abc"], [Action(f"n{i}", {"size": i / 7}) for i in range(70)]]


def requests(count: int) -> list[DecideRequest]:
    rng = np.random.default_rng(count)
    found: list[DecideRequest] = []
    for i in range(count):
        context = {"hour": int(rng.integers(24)), "x": float(rng.normal()), "town": f"t{int(rng.integers(3))}"}
        slots = [Slot("top"), Slot("side", features={"wide": True})] if i % 7 == 3 else None
        excluded = ["a"] if i % 5 == 4 else []
        found.append(
            DecideRequest(
                context, CATALOGUES[int(i % 6 == 5)], event_id=f"e{i}", excluded_actions=excluded, slots=slots
            )
        )
    return found


@pytest.fixture
def core(tmp_path: Path) -> Iterator[Core]:
    made = GuardedLoop(tmp_path, "[guard]\nenabled = true\n")
    core = open_core(load_settings({}, home=str(tmp_path), reload_s=3600.0), clock=lambda: NOW)
    yield core
    core.close()
    made.close()


async def together(core: Core, asked: Sequence[DecideRequest]) -> list[Any]:
    return await asyncio.gather(*[core.decide("shop", each) for each in asked], return_exceptions=True)


def test_what_is_asked_together_is_recorded_as_if_it_came_alone(core: Core, tmp_path: Path) -> None:
    asked = requests(120)
    answers = asyncio.run(together(core, asked))
    snapshot = core.snapshot("shop")
    for request, answer in zip(asked, answers, strict=True):
        event_id = request.event_id or ""
        alone = decide(
            (Ask(question_of(request, Catalogues()), snapshot, event_id, {}),), datetime.fromtimestamp(NOW, UTC)
        )[0]
        assert not isinstance(alone, Exception)
        assert [encode(record) for record in core.stored(event_id)] == [encode(record) for record in alone]
        assert answer.propensity == alone[0].propensity


def test_one_that_cannot_be_answered_fails_alone(core: Core) -> None:
    good = requests(6)
    asyncio.run(together(core, good[:1]))
    bad = [
        DecideRequest({"x": float("nan")}, CATALOGUES[0], event_id="bad"),
        DecideRequest({"other": 1}, CATALOGUES[0], event_id="e0"),
        DecideRequest({}, CATALOGUES[0], event_id="too many", slots=[Slot(str(i)) for i in range(4)]),
    ]
    answers = asyncio.run(together(core, [*good[1:3], *bad, *good[3:]]))
    kinds = [type(answer) for answer in answers if isinstance(answer, Exception)]
    assert kinds == [FieldError, EventIdReusedError, FieldError]
    assert [answer.event_id for answer in answers if not isinstance(answer, Exception)] == [
        f"e{i}" for i in range(1, 6)
    ]


def test_who_stops_waiting_takes_nobody_along(core: Core) -> None:
    async def ask() -> list[Any]:
        tasks = [asyncio.create_task(core.decide("shop", each)) for each in requests(9)]
        await asyncio.sleep(0)
        tasks[4].cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    answers = asyncio.run(ask())
    assert isinstance(answers.pop(4), asyncio.CancelledError)
    assert not [answer for answer in answers if isinstance(answer, BaseException)]


def test_a_service_that_closes_meanwhile_answers_everybody(core: Core) -> None:
    async def ask() -> list[Any]:
        tasks = [asyncio.create_task(core.decide("shop", each)) for each in requests(9)]
        await asyncio.sleep(0)
        core.spool.close()
        return await asyncio.gather(*tasks, return_exceptions=True)

    assert {type(answer) for answer in asyncio.run(ask())} == {UnavailableError}


class Touchy(UniformPolicy):
    """Fails where it is asked about a context it does not like, and counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def prepare(self, actions: Sequence[Features], action_ids: Sequence[str]) -> Any:
        def pmfs(contexts: Sequence[Features]) -> list[list[float]]:
            self.asked += 1
            if any("bad" in context for context in contexts):
                raise DecisionError("not this one")
            return [[1.0, 0.0, 0.0]] * len(contexts)

        return pmfs

    def pmf(self, batch: Batch) -> Floats:
        raise NotImplementedError


def decided(policy: Any, contexts: Sequence[dict[str, Any]]) -> list[list[Decision] | Exception]:
    snapshot = Snapshot(LoopSettings(name="shop"), policy, "1", UniformPolicy(), "baseline:uniform")
    catalogues = Catalogues()
    questions = [question_of(DecideRequest(context, CATALOGUES[0]), catalogues) for context in contexts]
    return decide([Ask(question, snapshot, f"e{i}", {}) for i, question in enumerate(questions)], TS)


def test_a_policy_is_asked_once_about_all_that_offer_the_same() -> None:
    policy = Touchy()
    assert all(isinstance(each, list) for each in decided(policy, [{"x": i} for i in range(40)]))
    assert policy.asked == 1


def test_a_policy_that_fails_for_one_is_asked_about_each() -> None:
    found = decided(Touchy(), [{"x": 1}, {"bad": 1}, {"x": 2}])
    assert [isinstance(each, DecisionError) for each in found] == [False, True, False]
