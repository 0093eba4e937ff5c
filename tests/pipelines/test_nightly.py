from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import msgspec
import numpy as np
import pytest

import pipelines.nightly as module
from decision.batch import Batch, Floats
from decision.errors import FieldError
from decision.records import encode
from pipelines.evaluation.standing import clear, standing
from pipelines.lake.lake import Lake
from pipelines.log.protocol import DECISIONS
from pipelines.log.sqlite.log import LocalLog
from pipelines.nightly import STEPS, nightly
from pipelines.operations.erase import erase
from pipelines.registry.registry import Registry
from pipelines.reports.night import night_key
from pipelines.runs import Run, runs
from pipelines.settings import LoopSettings, Settings
from tests.worlds.lake import decision
from tests.worlds.synthetic import KINDS, LATER, START, name_of, new_loop, new_settings, open_parts, play


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return new_settings(tmp_path_factory.mktemp("nightly"))


@pytest.fixture(scope="module")
def registry(settings: Settings) -> Registry:
    return Registry(settings)


@pytest.fixture(scope="module")
def parts(settings: Settings) -> Iterator[tuple[LocalLog, Lake]]:
    log, lake = open_parts(settings)
    yield log, lake
    log.close()


class Night:
    """Everything a run needs; called with what differs."""

    def __init__(self, settings: Settings, log: LocalLog, lake: Lake, registry: Registry, loop: LoopSettings) -> None:
        self.settings, self.log, self.lake, self.registry, self.loop = settings, log, lake, registry, loop
        self.told: list[tuple[str, str]] = []

    def __call__(self, run_id: str | None = None, **fields: Any) -> Run:
        self.told = []
        fields = {"now": LATER, "told": lambda *news: self.told.append(news), **fields}
        return nightly(self.settings, self.log, self.lake, self.registry, self.loop, run_id=run_id, **fields)


@pytest.fixture
def night(
    settings: Settings, parts: tuple[LocalLog, Lake], registry: Registry, request: pytest.FixtureRequest
) -> Night:
    return Night(settings, *parts, registry, new_loop(settings, name_of(request.node.name)))


def test_a_night_goes_from_the_log_to_a_new_champion(night: Night) -> None:
    play(night.log, night.loop.name, 600)
    run = night("first")
    assert (run.status, run.verdict, run.error) == ("done", "promoted", "")
    assert [step.name for step in run.steps] == list(STEPS)
    assert night.told == [news for step in STEPS for news in ((step, "started"), (step, "done"))]
    version = run.result("train")["version"]
    assert night.registry.aliases(night.loop.name) == {"champion": version}
    (written,) = night.registry.verdicts(night.loop.name)
    assert written.by == "nightly first"
    assert runs(night.settings, night.loop.name) == [run]
    page = (night.settings.root / night_key(run.loop, "first", "html")).read_text()
    assert f"Version {version} was promoted." in page
    assert "baseline, uniform" in page


def test_a_night_ends_by_removing_what_is_too_old(night: Night) -> None:
    play(night.log, night.loop.name, 300)
    left = night.settings.root / "imports" / ".new-abcdefgh"
    left.mkdir(parents=True)
    os.utime(left, (0, 0))
    tidied = night("tidy").result("tidy")
    assert {part["part"]: part["number"] for part in tidied["parts"]}["scratch"] == 1
    assert not left.exists()


def test_a_finished_run_is_not_run_again(night: Night) -> None:
    play(night.log, night.loop.name, 300)
    run = night("once")
    assert night("once") == run
    assert night.told == [(step, "kept") for step in STEPS]
    assert len(night.registry.versions(night.loop.name)) == 1


class Worst:
    """Draws an action that does not pay, always."""

    def pmf(self, batch: Batch) -> Floats:
        kind = next(iter(batch.contexts[0])).removeprefix("kind=")
        return np.eye(3)[(KINDS.index(kind) + 1) % 3]


def test_a_night_raises_alarms_against_the_nights_before(night: Night) -> None:
    play(night.log, night.loop.name, 600)
    first = night("first").result("alarms")
    assert (first["rows"] + first["before"], first["alarms"], first["standing"]) == (600, [], [])
    play(night.log, night.loop.name, 600, first=600, policy=Worst())
    second = night("second").result("alarms")
    assert (second["rows"], second["before"]) == (600, 600)
    assert second["value"] < 0.2 < second["value_before"]
    assert second["standing"] == ["value", "joins", "exploration"]
    kept = standing(night.settings, night.loop.name)
    assert [alarm.key for alarm in kept.alarms] == second["standing"]
    assert kept.figures is not None
    assert kept.figures.value == second["rewards"]["total"] / second["rewards"]["n"]
    assert kept.figures.join_rate == second["join_rate"]
    assert sum(kept.figures.decisions.values()) == 1_200
    assert kept.figures.strays == {"late": 0, "orphan": 0}
    clear(night.settings, night.loop.name, ["joins"], now=LATER, by="a test")
    third = night("third").result("alarms")  # nothing new was decided: the same decisions are looked at again
    assert third["standing"] == ["value", "exploration"]
    assert [alarm["kind"] for alarm in third["alarms"]] == ["value", "joins", "exploration"]


def test_a_refusal_is_a_result(night: Night) -> None:
    policy = msgspec.structs.replace(night.loop.policy, exploration="uniform")
    night.loop = msgspec.structs.replace(night.loop, policy=policy)
    play(night.log, night.loop.name, 300)
    run = night("refused")
    assert (run.status, run.verdict) == ("done", "refused")
    assert run.result("promote")["reasons"]
    assert night.registry.aliases(night.loop.name) == {}


def test_a_night_with_too_little_to_learn_from_is_skipped(night: Night) -> None:
    play(night.log, night.loop.name, 20)
    run = night("early")
    assert (run.status, run.verdict) == ("done", "skipped")
    assert "20 interactions, 200 are needed" in run.result("promote")["skipped"]
    assert night.registry.versions(night.loop.name) == []


@pytest.mark.parametrize("step", ["alarms", "train", "evaluate", "promote"])
def test_a_night_goes_on_with_what_an_erasure_left(night: Night, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    play(night.log, night.loop.name, 600)
    theirs = [decision(f"theirs-{n}", loop=night.loop.name, subject_id=step, ts=START) for n in range(4)]
    night.log.append_many(DECISIONS, [(one.event_id.encode(), encode(one), ()) for one in theirs])
    real = getattr(module, step)

    def after_an_erasure(*args: Any, **kwargs: Any) -> Any:
        erase(night.lake, step)
        return real(*args, **kwargs)

    monkeypatch.setattr(module, step, after_an_erasure)
    run = night()
    assert (run.status, run.verdict) == ("done", "promoted")
    assert len(night.lake.interactions(night.loop.name)) == 600


class Killed(BaseException):
    """Ends the process as a kill would: nobody who catches errors sees it."""


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_a_run_cut_short_in_any_step_ends_as_if_it_had_not_been(
    night: Night, monkeypatch: pytest.MonkeyPatch, step: str, when: str
) -> None:
    """Cut before the step's work, with an error, or after all of it but before the manifest, with a kill."""
    play(night.log, night.loop.name, 600)
    target: Any = night.lake if step == "compact" else module
    real = getattr(target, step)

    def cut_short(*args: Any, **kwargs: Any) -> None:
        if when == "before":
            raise RuntimeError("cut")
        real(*args, **kwargs)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(target, step, cut_short)
        with pytest.raises((RuntimeError, Killed)):
            night("cut")
    (left,) = runs(night.settings, night.loop.name)
    assert [entry.name for entry in left.steps] == list(STEPS[: STEPS.index(step)])
    assert (left.status, left.error) == (
        ("failed", f"{step}: RuntimeError: cut") if when == "before" else ("running", "")
    )
    run = night("cut", seed=99, now=LATER + timedelta(hours=2))
    assert night.told[: STEPS.index(step)] == [(name, "kept") for name in STEPS[: STEPS.index(step)]]
    assert (run.status, run.verdict, run.seed, run.started_at) == ("done", "promoted", 1, LATER)
    rows = night.lake.interactions(night.loop.name)
    assert len(set(rows["event_id"].to_pylist())) == len(rows) == 600
    (version,) = night.registry.versions(night.loop.name)
    assert night.registry.aliases(night.loop.name) == {"champion": version.version}
    assert [written.verdict for written in night.registry.verdicts(night.loop.name)] == ["promoted"]


def test_without_an_id_an_unfinished_young_run_is_continued_and_else_a_new_one_started(
    night: Night, monkeypatch: pytest.MonkeyPatch
) -> None:
    play(night.log, night.loop.name, 20)
    with monkeypatch.context() as patch:
        patch.setattr(module, "join", lambda *args, **named: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            night()
        with pytest.raises(ZeroDivisionError):
            night(now=LATER + timedelta(hours=25))
    first, second = runs(night.settings, night.loop.name)
    assert first.run_id != second.run_id
    assert night(now=LATER + timedelta(hours=26)).run_id == second.run_id
    assert night(now=LATER + timedelta(hours=27)).run_id not in (first.run_id, second.run_id)


def test_two_runs_of_a_loop_do_not_overlap(night: Night, monkeypatch: pytest.MonkeyPatch) -> None:
    def meanwhile(*args: Any, **kwargs: Any) -> None:
        night("second")

    monkeypatch.setattr(module, "ingest", meanwhile)
    with pytest.raises(FieldError, match="the only run of this loop"):
        night("first")


@pytest.mark.parametrize("run_id", ["", "../x", "a/b", ".", "x" * 65])
def test_run_ids_cannot_leave_their_folder(night: Night, run_id: str) -> None:
    with pytest.raises(FieldError, match="run_id"):
        night(run_id)
