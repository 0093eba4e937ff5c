"""Evaluations asked of a service: policies judged on the same held-out rows, and a record that says how far it is."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from decision.errors import FieldError
from pipelines.operations import evaluations
from pipelines.operations.evaluations import Asked, Evaluation
from pipelines.operations.waiting import wait_until
from pipelines.registry.registry import Registry
from pipelines.settings import Settings
from pipelines.state.state import State
from pipelines.training.train import train
from tests.worlds.synthetic import BAD, GOOD, new_loop, new_settings, open_parts, play, settle

NOW = datetime(2026, 6, 1, tzinfo=UTC)
EVER = {"start": datetime(2020, 1, 1, tzinfo=UTC), "end": datetime(2100, 1, 1, tzinfo=UTC)}
KNOWING = Asked(
    name="knowing", arguments="", values={"policy.oracle": "linear", "policy.exploration": "epsilon_greedy"}
)


def asked(id: str = "e", **fields: Any) -> Evaluation:
    given = {"loop": "news", "name": "all", "asked": [], "created_at": NOW, **EVER, **fields}
    return Evaluation(id=id, **given)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Return an installation whose loop has drawn uniformly and settled."""
    settings = new_settings(tmp_path_factory.mktemp("home"))
    loop = new_loop(settings, "news", "[reward]\nminimum = 0.0\nmaximum = 1.0\n")
    log, lake = open_parts(settings)
    play(log, "news", 2_000)
    settle(log, lake, loop)
    log.close()
    return settings


@pytest.fixture
def state(settings: Settings) -> Iterator[State]:
    with State(settings.state_url) as state:
        yield state
        for one in evaluations.listed(state, "news", now=NOW):
            evaluations.remove(state, "news", one.id, by="a test")


def found(state: State, id: str = "e", now: datetime = NOW) -> Evaluation:
    one = evaluations.read(state, "news", id, now=now)
    assert one is not None
    return one


def test_a_policy_that_learns_beats_those_that_do_not_on_rows_it_has_not_seen(settings: Settings, state: State) -> None:
    evaluations.add(state, asked(asked=[KNOWING]), now=NOW, by="a test")
    assert found(state).status == "pending"
    evaluations.work_out(settings, "news", "e")
    done = found(state)
    assert (done.status, done.reason) == ("completed", "")
    by_origin = {one.origin: one for one in done.judged}
    assert by_origin.keys() == {"Online", "Baseline", "Random", "Custom"}
    assert len({one.rows for one in done.judged}) == 1
    assert 0 < by_origin["Random"].rows < 1_000
    random, custom = by_origin["Random"], by_origin["Custom"]
    assert random.value is not None
    assert random.low is not None
    assert random.high is not None
    assert random.low <= (GOOD + 2 * BAD) / 3 <= random.high  # seeded; a 95% interval
    assert random.value == by_origin["Online"].value  # no version is in charge, and the baseline is uniform
    assert random.mean_weight == pytest.approx(1.0)
    assert custom.low is not None
    assert custom.low > random.value
    assert done.best == "knowing"


def test_a_margin_keeps_a_policy_at_what_the_champion_does_as_a_training_would(
    settings: Settings, state: State
) -> None:
    margins = {"far": 1e6, "none": 0.0}
    policies = [
        msgspec.structs.replace(KNOWING, name=name, values={**KNOWING.values, "training.margin": margin})
        for name, margin in margins.items()
    ]
    loop = new_loop(settings, "keeping", "[reward]\nminimum = 0.0\nmaximum = 1.0\n")
    log, lake = open_parts(settings)
    play(log, "keeping", 2_000)
    settle(log, lake, loop)
    log.close()
    registry = Registry(settings)
    blind = msgspec.structs.replace(loop.policy, interactions=False)  # it sees no kind beside a colour
    champion = train(lake, registry, msgspec.structs.replace(loop, policy=blind), seed=0, now=NOW)
    registry.set_alias("keeping", "champion", champion.version, {})
    evaluations.add(state, asked(loop="keeping", asked=policies), now=NOW, by="a test")
    evaluations.work_out(settings, "keeping", "e")
    done = evaluations.read(state, "keeping", "e", now=NOW)
    assert done is not None
    by_name = {one.name: one for one in done.judged}
    far, none, online = by_name["far"], by_name["none"], by_name["Online Policy"]
    assert far.high is not None
    assert none.low is not None
    assert online.value is not None
    assert far.high < none.low
    assert far.value == pytest.approx(online.value, abs=0.1)


def test_rows_outside_of_the_times_asked_for_are_not_looked_at(settings: Settings, state: State) -> None:
    evaluations.add(state, asked(end=datetime(2020, 1, 2, tzinfo=UTC)), now=NOW, by="a test")
    evaluations.work_out(settings, "news", "e")
    done = found(state)
    assert (done.status, done.judged) == ("failed", [])
    assert "news" in done.reason


def test_the_same_question_again_is_the_same_evaluation_and_another_is_refused(state: State) -> None:
    first = evaluations.add(state, asked(), now=NOW, by="a test")
    again = asked(created_at=NOW + timedelta(seconds=9))
    assert evaluations.add(state, again, now=NOW, by="a test") == first
    with pytest.raises(evaluations.EvaluationExistsError):
        evaluations.add(state, asked(name="another"), now=NOW, by="a test")


def test_so_many_are_under_way_and_so_many_are_kept(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(evaluations.MOST_AT_ONCE):
        evaluations.add(state, asked(f"e{number}"), now=NOW, by="a test")
    with pytest.raises(evaluations.TooManyEvaluationsError, match="under way"):
        evaluations.add(state, asked("more"), now=NOW, by="a test")
    later = NOW + timedelta(seconds=evaluations.MOST_S + 1)
    assert found(state, "e0", later).status == "timeout"
    evaluations.add(state, asked("more", created_at=later), now=later, by="a test")
    monkeypatch.setattr(evaluations, "MOST", 3)
    with pytest.raises(evaluations.TooManyEvaluationsError, match="delete"):
        evaluations.add(state, asked("one more", created_at=later), now=later, by="a test")


def test_what_was_deleted_while_it_was_under_way_leaves_nothing(settings: Settings, state: State) -> None:
    evaluations.add(state, asked(), now=NOW, by="a test")
    assert evaluations.remove(state, "news", "e", by="a test")
    evaluations.work_out(settings, "news", "e")
    assert evaluations.read(state, "news", "e", now=NOW) is None
    assert not evaluations.remove(state, "news", "e", by="a test")


def test_whoever_asks_and_deletes_again_and_again_gets_no_more_processes(settings: Settings, state: State) -> None:
    def runs(process: psutil.Process) -> bool:
        try:
            return "pipelines.operations.evaluations" in process.cmdline()
        except psutil.Error:  # it ended meanwhile
            return False

    def running() -> list[psutil.Process]:
        return [each for each in psutil.Process().children() if runs(each)]

    most = 0
    for number in range(4 * evaluations.MOST_AT_ONCE):
        evaluations.add(state, asked(f"e{number}", created_at=datetime.now(UTC)), now=NOW, by="a test")
        evaluations.start(settings, "news", f"e{number}")
        wait_until(lambda known=number: running() or known > 1, "the first to run")
        most = max(most, len(running()))
        evaluations.remove(state, "news", f"e{number}", by="a test")
    assert 1 <= most <= evaluations.MOST_AT_ONCE
    wait_until(lambda: not running(), "those that nobody waits for to end")
    wait_until(lambda: "evaluation" not in {each.name for each in threading.enumerate()}, "their threads to give back")


def test_more_than_may_wait_are_refused(settings: Settings, state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    line = threading.BoundedSemaphore(1)
    monkeypatch.setattr(evaluations, "_lines", line)
    with evaluations._places, evaluations._places:  # both places are taken
        evaluations.start(settings, "news", "e1")
        with pytest.raises(evaluations.TooManyEvaluationsError, match="wait"):
            evaluations.start(settings, "news", "e2")
    wait_until(lambda: line.acquire(blocking=False), "the line to be empty")


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"id": ""}, "id"),
        ({"id": "x" * 129}, "id"),
        ({"id": "a\nb"}, "id"),
        ({"end": EVER["start"]}, "end"),
        ({"asked": [KNOWING, KNOWING]}, "policies"),
        ({"asked": [msgspec.structs.replace(KNOWING, name=str(i)) for i in range(11)]}, "policies"),
    ],
)
def test_what_does_not_fit_is_refused(state: State, fields: dict[str, Any], field: str) -> None:
    with pytest.raises(FieldError, match=field):
        evaluations.add(state, asked(**fields), now=NOW, by="a test")


def test_a_policy_that_cannot_be_trained_fails_the_evaluation_with_the_reason(tmp_path: Path) -> None:
    settings = new_settings(tmp_path)
    new_loop(settings, "news")
    with State(settings.state_url) as state:
        evaluations.add(state, asked(asked=[KNOWING]), now=NOW, by="a test")
        evaluations.work_out(settings, "news", "e")
        done = found(state)
        assert done.status == "failed"
        assert done.reason
